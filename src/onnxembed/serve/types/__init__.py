"""Requests and answers as the clients of each family write and read them: one file for each family."""

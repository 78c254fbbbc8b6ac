"""The routes of each family of clients, as data: a path, its types, and the function that answers."""

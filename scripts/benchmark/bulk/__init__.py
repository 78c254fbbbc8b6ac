"""What bulk jobs cost, and whether they keep their promises."""

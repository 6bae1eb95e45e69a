"""What the readers share: annotation files, tables, and rows made from them."""

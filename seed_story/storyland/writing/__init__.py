"""The texts of Storyland: its words, its plots, and the reader that understands them."""

"""The pictures of Storyland: canvas, figures, creatures, places."""

"""Pictures of arrays and curves, independent of the problem. Matplotlib and Pillow are imported when something is drawn."""

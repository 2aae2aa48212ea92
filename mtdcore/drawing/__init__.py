"""Pictures of arrays and curves; knows nothing of the problem. Matplotlib and Pillow are imported when something is drawn."""

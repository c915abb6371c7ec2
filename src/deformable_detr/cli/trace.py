"""`ddetr trace`: every stage from picture to box, its tensor and its shape."""

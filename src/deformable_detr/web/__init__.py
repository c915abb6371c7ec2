"""What pages share: a base template with its style, and how names and numbers are written."""

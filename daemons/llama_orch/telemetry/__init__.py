"""Log records with stable message ids, levels and correlation ids."""

"""A campaign of kills: what the suite looks like after each of many SIGKILLs and power cuts at random moments."""

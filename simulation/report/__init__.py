"""What a run leaves behind: its record, and the tables, figures and pages made from it."""

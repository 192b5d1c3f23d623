"""What real exporters wrote, lowered: the same numbers in every form."""

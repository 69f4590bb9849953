"""What a feed says, whether to believe it, and how it fails. No network, no clock."""

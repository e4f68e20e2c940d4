"""Pages and forms that open over the main screen."""

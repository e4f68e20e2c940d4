"""What opens over the main screen: dialogs, the feature screen, tables and reports."""

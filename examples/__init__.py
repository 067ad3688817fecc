"""Programs that use graphc as a user would."""

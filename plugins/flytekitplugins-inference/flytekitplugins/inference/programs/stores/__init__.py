"""Reading from any store that Flyte's users have, through one small interface."""

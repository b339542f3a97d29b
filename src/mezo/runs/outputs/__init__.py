"""What a person does with a finished run: write text with it, merge, export and publish it."""

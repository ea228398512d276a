"""What a committee is worth: errors, physics, observables."""

"""What MeZO is compared with (MeZO, section 3), on the same tasks and by the same metrics."""

"""What all serving engines share: requests, adapters, a process of their own."""

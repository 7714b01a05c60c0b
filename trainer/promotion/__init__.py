"""From a candidate to a champion, a share of the traffic at a time, and back in one step."""

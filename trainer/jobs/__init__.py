"""Several trainings, one a domain, beside each other: on this machine, on Ray, on Kubernetes."""

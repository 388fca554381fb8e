"""Ray: the cluster, its nodes, and streams of work over them."""

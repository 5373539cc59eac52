"""Sentinel, Cluster, TLS and users with few rights, on real servers on the loopback interface."""

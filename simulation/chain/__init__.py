"""Everything that touches a process or an EVM: local nodes, deployments, seeded books."""

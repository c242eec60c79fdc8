"""The auditor's hands: engines that draw answers again, evidence on disk, and pages for people and Prometheus."""

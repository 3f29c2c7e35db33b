"""Scores the readings of the Kafka topic that belayd relays to, with an online model."""

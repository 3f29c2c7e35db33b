"""Prints what a consumer of committed records sees, with a client of its own: confluent-kafka, in a process without a line of belayd (beneath it is librdkafka, too).

    python consume.py BROKERS TOPIC

A line a record: engine, time, stream, number, separated by tabs; an empty line where nothing more is at hand. It goes on until its
standard input is closed, then up to the end that the partitions had at that moment, says "end" and exits with 0. With 1: the end was not
reached within two minutes, as behind a transaction that nobody ends.
"""

import json
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

brokers, topic = sys.argv[1:3]
closed = threading.Event()


def wait_for_the_end_of_input() -> None:
    while sys.stdin.read(4096):
        pass
    closed.set()


threading.Thread(target=wait_for_the_end_of_input, daemon=True).start()
consumer = Consumer(
    {
        "bootstrap.servers": brokers,
        "group.id": "an-independent-consumer",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "reconnect.backoff.max.ms": 500,
        "fetch.wait.max.ms": 50,
        "log_level": 0,
    }
)


def partitions() -> list[int]:
    try:
        return sorted(consumer.list_topics(topic, timeout=5).topics[topic].partitions)
    except KafkaException:
        return []


known: list[int] = []
while not known:
    known = partitions()
    if not known:
        if closed.is_set():
            sys.exit("the topic is not there")
        time.sleep(0.2)
consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in known])

reached = dict.fromkeys(known, 0)
ends: dict[int, int] | None = None
until = 0.0
write = sys.stdout.write
while True:
    for message in consumer.consume(500, timeout=0.1):
        error = message.error()
        if error is None:
            headers = dict(message.headers())
            value = json.loads(message.value())
            key = message.key().decode()
            if key != value["engineId"]:
                sys.exit(f"the key {key} is not the engine of {value}")
            reached[message.partition()] = max(reached[message.partition()], message.offset() + 1)
            write(f"{key}\t{value['timestamp']}\t{headers['stream'].decode()}\t{headers['seq'].decode()}\n")
        elif error.code() == KafkaError._PARTITION_EOF:
            # Behind the last record stand the ends of transactions, which are no records.
            reached[message.partition()] = max(reached[message.partition()], message.offset())
    write("\n")
    sys.stdout.flush()
    if not closed.is_set():
        continue
    if ends is None:
        try:
            ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in known}
        except KafkaException:
            continue
        until = time.monotonic() + 120
    if all(reached[partition] >= end for partition, end in ends.items()):
        write("end\n")
        sys.stdout.flush()
        sys.exit(0)
    if time.monotonic() > until:
        sys.exit(f"read up to {reached}, the ends are {ends}")

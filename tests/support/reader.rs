//! An independent consumer: reads what is committed from the beginning of every partition, and keeps count by stream and number.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, Message},
};
use serde_json::Value;

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    pub partition: i32,
    pub key: String,
    pub stream: String,
    pub seq: u64,
    pub delivery: String,
    pub value: String,
    /// When it was seen here.
    pub seen: Instant,
}

impl Record {
    /// The value as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.value).expect("the value is JSON")
    }
}

/// See the module.
pub struct Reader {
    records: Arc<Mutex<Vec<Record>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Begins to read `topic`, whether it is there yet or not.
    pub fn start(client: &ClientConfig, topic: &str) -> Self {
        let mut config = client.clone();
        config
            .set("group.id", format!("reader-{}", uuid::Uuid::new_v4()))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "500")
            .set("fetch.wait.max.ms", "20")
            .set("log_level", "0");
        let (records, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (records, stop, topic) = (records.clone(), stop.clone(), topic.to_owned());
            std::thread::spawn(move || read(&config, &topic, &records, &stop))
        };
        Self { records, stop, thread: Some(thread) }
    }

    /// Everything read so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().expect("no panic").clone()
    }

    /// How many records were read so far.
    pub fn count(&self) -> usize {
        self.records.lock().expect("no panic").len()
    }

    /// How often each number of each stream was read.
    pub fn by_number(&self) -> HashMap<(String, u64), usize> {
        let mut counts = HashMap::new();
        for record in self.records.lock().expect("no panic").iter() {
            *counts.entry((record.stream.clone(), record.seq)).or_insert(0) += 1;
        }
        counts
    }

    /// Waits until `count` records have been read, and a little longer for those that should not be there.
    pub fn wait_for(&self, count: usize, limit: Duration) {
        // It bounds a failure and is no promise of speed.
        let limit = limit.max(Duration::from_secs(120));
        let until = Instant::now() + limit;
        while self.count() < count {
            assert!(Instant::now() < until, "{} records of {count} within {limit:?}", self.count());
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
    }

    /// That within each engine and stream the numbers only rise, and that an engine has one partition.
    pub fn check_order(&self) {
        let mut last: BTreeMap<(String, String), (u64, i32)> = BTreeMap::new();
        for record in self.records() {
            let before = last.insert((record.key.clone(), record.stream.clone()), (record.seq, record.partition));
            if let Some((seq, partition)) = before {
                assert!(seq < record.seq, "{record:?} after {seq}");
                assert_eq!(partition, record.partition, "{record:?}");
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(config: &ClientConfig, topic: &str, records: &Mutex<Vec<Record>>, stop: &AtomicBool) {
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let (mut partitions, mut looked) = (0, None::<Instant>);
    while !stop.load(Ordering::Acquire) {
        if looked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
            looked = Some(Instant::now());
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(1));
            let found = metadata.ok().and_then(|all| all.topics().first().map(|topic| topic.partitions().len())).unwrap_or(0);
            if found > partitions {
                let mut more = TopicPartitionList::new();
                for partition in partitions..found {
                    more.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("a place");
                }
                consumer.incremental_assign(&more).expect("assigned");
                partitions = found;
            }
        }
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let header = |name: &str| {
                let headers = message.headers().expect("headers");
                let found = headers.iter().find(|header| header.key == name);
                text(Some(found.and_then(|header| header.value).expect("the header")))
            };
            records.lock().expect("no panic").push(Record {
                partition: message.partition(),
                key: text(message.key()),
                stream: header("stream"),
                seq: header("seq").parse().expect("a number"),
                delivery: header("deliveryId"),
                value: text(message.payload()),
                seen: Instant::now(),
            });
            if stop.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

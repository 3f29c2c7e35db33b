//! One stream's way into Kafka: a transactional producer, opened, used for one run after the other, dropped at the first failure.
//!
//! What fails is never mended in place: the next [`Link::open`] fences whatever this one left behind, ends its transaction one way or the
//! other, and only then reads the mark. So there is one way to learn an outcome, and every failure takes it.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
    types::RDKafkaErrorCode as Code,
};

use super::{
    classify::classify,
    client::{Ears, listen, looking, settings},
    topic,
};
use crate::{
    config::KafkaConfig,
    sinks::{ErrorClass, SendError},
};

/// The mark before the first run.
const START: &str = "start";
/// Most bytes of records in a producer's queue, KiB.
const QUEUE_KBYTES: &str = "4096";
/// Most records in a producer's queue.
const QUEUE_RECORDS: &str = "8192";
/// Records between two looks at what became of earlier ones.
const LOOK_EVERY: u32 = 512;
/// Shortest life of a transaction that its producer left behind: until then consumers of committed records wait behind it.
const TRANSACTION_MIN: Duration = Duration::from_secs(10);
/// How long the library may take beyond the time-out that it was given.
const GRACE: Duration = Duration::from_secs(2);

/// The consumer group, and transactional id, of a stream.
pub fn group_of(lane: &str) -> String {
    format!("belayd-{lane}")
}

/// See the module.
pub struct Link {
    producer: Arc<BaseProducer<Ears>>,
    ears: Ears,
    group: Arc<ConsumerGroupMetadata>,
    topic: String,
    timeout: Duration,
    partitions: u32,
    mark: Option<String>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("topic", &self.topic).field("mark", &self.mark).finish_non_exhaustive()
    }
}

impl Link {
    /// Looks at the topic, fences every other producer of `lane`, ends what it left open, and reads the mark of the last run that was
    /// committed.
    ///
    /// # Errors
    /// As [`classify`] says.
    pub fn open(config: &KafkaConfig, lane: &str) -> Result<Self, SendError> {
        let group = group_of(lane);
        let consumer: BaseConsumer<Ears> = looking(config, &group)
            .create_with_context(Ears::default())
            .map_err(|error| classify("setting the client up", &error, None))?;
        let partitions = topic::ensure(&consumer, config)?;
        let ears = Ears::default();
        let producer: BaseProducer<Ears> = producer_settings(config, &group)
            .create_with_context(ears.clone())
            .map_err(|error| classify("setting the producer up", &error, None))?;
        producer.init_transactions(config.timeout.max(Duration::from_secs(3))).map_err(|error| {
            listen(|| producer.poll(Duration::from_millis(1)));
            classify("opening the stream", &error, ears.connection())
        })?;
        let mark = committed(&consumer, config)?;
        let group = consumer.group_metadata().ok_or_else(|| SendError {
            class: ErrorClass::Fatal,
            error_type: "configuration",
            message: "the client knows no consumer group".into(),
        })?;
        let (producer, group) = (Arc::new(producer), Arc::new(group));
        Ok(Self { producer, ears, group, topic: config.topic.clone(), timeout: config.timeout, partitions, mark })
    }

    /// Partitions of the topic when it was last looked at.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The mark of the last run that Kafka has committed; `None` where it knows of none.
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Looks again how many partitions there are.
    ///
    /// # Errors
    /// As [`classify`] says; the link may still be used.
    pub fn look_again(&mut self) -> Result<u32, SendError> {
        let metadata = self.producer.client().fetch_metadata(Some(&self.topic), self.timeout);
        let metadata = metadata.map_err(|error| classify("looking at the topic", &error, self.ears.connection()))?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic && topic.error().is_none());
        if let Some(count) = found.and_then(|topic| u32::try_from(topic.partitions().len()).ok()).filter(|count| *count > 0) {
            self.partitions = count;
        }
        Ok(self.partitions)
    }

    /// Commits the mark before the first run, so that a stream without a mark is one that Kafka has forgotten.
    ///
    /// # Errors
    /// As [`classify`] says; drop the link.
    pub fn begin_marking(&mut self) -> Result<(), SendError> {
        if self.mark.is_none() {
            self.transact(START, 0, |_| Ok::<(), SendError>(()))?;
        }
        Ok(())
    }

    /// Sends what `fill` gives it, and `mark` with it, in one transaction. Only after Ok is it in Kafka; after an error it may be.
    ///
    /// # Errors
    /// As [`classify`] says, or that of `fill`; drop the link.
    pub fn transact<E: From<SendError>>(
        &mut self,
        mark: &str,
        offset: i64,
        fill: impl FnOnce(&mut Outgoing<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |doing: &str, error: &KafkaError| classify(doing, error, self.ears.connection());
        self.producer.begin_transaction().map_err(|error| failed("beginning a transaction", &error))?;
        let mut outgoing = Outgoing { link: self, sent: 0 };
        fill(&mut outgoing)?;
        outgoing.wait_for_all()?;
        self.note(mark, offset).map_err(|error| failed("noting the run", &error))?;
        let timeout = self.timeout;
        self.within(move |producer| producer.commit_transaction(timeout)).map_err(|error| failed("committing", &error))?;
        #[cfg(feature = "fault-injection")]
        lose_the_answer_on_purpose().map_err(|error| failed("committing", &error))?;
        self.mark = Some(mark.to_owned());
        Ok(())
    }
}

impl Link {
    /// Puts the mark into the transaction that is open.
    fn note(&self, mark: &str, offset: i64) -> Result<(), KafkaError> {
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets.add_partition_offset(&self.topic, 0, Offset::Offset(offset))?;
        if let Some(mut place) = offsets.find_partition(&self.topic, 0) {
            place.set_metadata(mark);
        }
        let (group, timeout) = (self.group.clone(), self.timeout);
        self.within(move |producer| producer.send_offsets_to_transaction(&offsets, &group, timeout))
    }

    /// Calls the library on a thread of its own and waits for it. It does not always keep to the time-out that it is given: a step of a
    /// transaction whose coordinator dies in the middle of it was seen to wait until that broker came back. The caller gives it up then, as
    /// an outcome that is unknown; the producer ends with the thread, and the next one of the stream fences it.
    fn within(&self, call: impl FnOnce(&BaseProducer<Ears>) -> Result<(), KafkaError> + Send + 'static) -> Result<(), KafkaError> {
        let (done, answer) = mpsc::sync_channel(1);
        let producer = self.producer.clone();
        let run = move || {
            // Nobody waits any more where it took too long.
            let _ = done.send(call(&producer));
        };
        // Without a thread nothing is sent, and the channel says so at once.
        let _ = thread::Builder::new().name("relay-call".into()).spawn(run);
        answer.recv_timeout(self.timeout + GRACE).unwrap_or(Err(KafkaError::MessageProduction(Code::MessageTimedOut)))
    }

    /// What a record's refusal means. Where the whole transaction has failed its records are only said to be purged: a further step of the
    /// transaction, which is never committed, is refused with the cause.
    fn refused(&self, error: &KafkaError) -> SendError {
        let purged = [Code::PurgeQueue, Code::PurgeInflight, Code::State].map(Some).contains(&error.rdkafka_error_code());
        let cause = if purged { self.note("", 0).err() } else { None };
        classify("sending", cause.as_ref().unwrap_or(error), self.ears.connection())
    }

    fn too_slow(&self) -> SendError {
        classify("sending", &KafkaError::MessageProduction(Code::MessageTimedOut), self.ears.connection())
    }
}

fn producer_settings(config: &KafkaConfig, id: &str) -> rdkafka::ClientConfig {
    let mut settings = settings(config);
    let transaction = (config.timeout * 3).max(TRANSACTION_MIN);
    settings
        .set("transactional.id", id)
        .set("transaction.timeout.ms", transaction.as_millis().to_string())
        .set("message.timeout.ms", config.timeout.as_millis().to_string())
        .set("compression.type", "lz4")
        .set("linger.ms", "1")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES)
        .set("queue.buffering.max.messages", QUEUE_RECORDS);
    settings
}

/// Kafka has committed, and nobody hears of it: at every commit.
#[cfg(feature = "fault-injection")]
fn lose_the_answer_on_purpose() -> Result<(), KafkaError> {
    match std::env::var_os("BELAYD_FAULT") {
        Some(fault) if fault == "relay-unheard" => Err(KafkaError::MessageProduction(Code::MessageTimedOut)),
        _ => Ok(()),
    }
}

/// The mark in Kafka.
fn committed(consumer: &BaseConsumer<Ears>, config: &KafkaConfig) -> Result<Option<String>, SendError> {
    let doing = "reading what was committed last";
    let mut wanted = TopicPartitionList::with_capacity(1);
    wanted.add_partition(&config.topic, 0);
    let found = consumer
        .committed_offsets(wanted, config.timeout.max(Duration::from_secs(3)))
        .map_err(|error| classify(doing, &error, consumer.client().context().connection()))?;
    let place = found.elements_for_topic(&config.topic).into_iter().next();
    let Some(place) = place else { return Ok(None) };
    place.error().map_err(|error| classify(doing, &error, None))?;
    Ok(matches!(place.offset(), Offset::Offset(_)).then(|| place.metadata().to_owned()))
}

/// Where the records of one transaction go.
pub struct Outgoing<'l> {
    link: &'l Link,
    sent: u32,
}

impl std::fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Outgoing<'_> {
    /// Partitions of the topic.
    pub fn partitions(&self) -> u32 {
        self.link.partitions
    }

    /// Hands one record over. It waits while the producer's queue is full.
    ///
    /// # Errors
    /// As [`classify`] says: this record cannot be handed over, or an earlier one was refused.
    pub fn send(&mut self, partition: u32, key: &str, value: &[u8], headers: &[(&str, &[u8])]) -> Result<(), SendError> {
        let producer = &self.link.producer;
        let owned = headers.iter().fold(OwnedHeaders::new_with_capacity(headers.len()), |all, (key, value)| {
            all.insert(Header { key, value: Some(*value) })
        });
        let mut record = BaseRecord::to(&self.link.topic)
            .partition(i32::try_from(partition).unwrap_or(i32::MAX))
            .key(key)
            .payload(value)
            .headers(owned);
        let mut until = None;
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    record = back;
                    let until = *until.get_or_insert_with(|| Instant::now() + self.link.timeout);
                    producer.poll(Duration::from_millis(1));
                    self.look()?;
                    if Instant::now() > until {
                        return Err(self.link.too_slow());
                    }
                }
                Err((error, _)) => return Err(self.link.refused(&error)),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(LOOK_EVERY) {
            producer.poll(Duration::ZERO);
            self.look()?;
        }
        Ok(())
    }

    fn look(&self) -> Result<(), SendError> {
        let refused = self.link.ears.take_record();
        refused.map_or(Ok(()), |error| Err(self.link.refused(&error)))
    }

    fn wait_for_all(&self) -> Result<(), SendError> {
        // The library itself gives a record up after its time-out; this only keeps a fault of it from waiting for ever.
        let until = Instant::now() + self.link.timeout * 2;
        while self.link.producer.in_flight_count() > 0 {
            self.link.producer.poll(Duration::from_millis(1));
            self.look()?;
            if Instant::now() > until {
                return Err(self.link.too_slow());
            }
        }
        self.look()
    }
}

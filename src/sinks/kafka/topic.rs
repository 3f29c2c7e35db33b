//! The topic: looked at before anything is sent, made where that is allowed.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};

use super::{
    classify::classify,
    client::{Ears, listen, looking, settings},
};
use crate::{
    config::KafkaConfig,
    sinks::{ErrorClass, SendError},
};

/// Looks before a topic that was just made is given up: its leaders are chosen a moment later.
const LOOKS: u32 = 20;
/// From one of these looks to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How many partitions the topic has; `None` where there is no such topic.
pub(super) fn look(consumer: &BaseConsumer<Ears>, config: &KafkaConfig, timeout: Duration) -> Result<Option<u32>, SendError> {
    let doing = "looking at the topic";
    let heard = || consumer.client().context().connection();
    let metadata = match consumer.fetch_metadata(Some(&config.topic), timeout) {
        Ok(metadata) => metadata,
        Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => return Ok(None),
        Err(error) => {
            listen(|| drop(consumer.poll(Duration::from_millis(1))));
            return Err(classify(doing, &error, heard()));
        }
    };
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == config.topic) else { return Ok(None) };
    match topic.error().map(Code::from) {
        None => Ok(u32::try_from(topic.partitions().len()).ok().filter(|count| *count > 0)),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
        Some(code) => Err(classify(doing, &KafkaError::MetadataFetch(code), None)),
    }
}

/// How many partitions the topic has, which is made where it is missing and that is allowed.
pub(super) fn ensure(consumer: &BaseConsumer<Ears>, config: &KafkaConfig) -> Result<u32, SendError> {
    if let Some(partitions) = look(consumer, config, config.timeout)? {
        return Ok(partitions);
    }
    if !config.create_topic {
        let message = format!("topic \"{}\" is missing, and kafka.create_topic is false: create it, or allow it", config.topic);
        return Err(SendError { class: ErrorClass::Fatal, error_type: "unknown_topic", message });
    }
    create(config)?;
    for _ in 0..LOOKS {
        if let Some(partitions) = look(consumer, config, config.timeout)? {
            return Ok(partitions);
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    let message = format!("topic \"{}\" was created and is not there yet", config.topic);
    Err(SendError { class: ErrorClass::Retry { after: None }, error_type: "leader", message })
}

fn create(config: &KafkaConfig) -> Result<(), SendError> {
    let doing = "creating the topic";
    let ears = Ears::default();
    let admin: AdminClient<Ears> =
        settings(config).create_with_context(ears.clone()).map_err(|error| classify(doing, &error, None))?;
    let partitions = i32::try_from(config.partitions).unwrap_or(i32::MAX);
    let replication = config.replication.map_or(-1, |copies| i32::try_from(copies).unwrap_or(i32::MAX));
    let topic = NewTopic::new(&config.topic, partitions, TopicReplication::Fixed(replication));
    let options = AdminOptions::new().request_timeout(Some(config.timeout)).operation_timeout(Some(config.timeout));
    let created = block_on(admin.create_topics([&topic], &options)).map_err(|error| classify(doing, &error, ears.connection()))?;
    match created.into_iter().next() {
        // Another instance was quicker.
        None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => {
            log::info!(target: "belayd::kafka", topic = config.topic.as_str(), partitions = config.partitions; "topic created");
            Ok(())
        }
        Some(Err((_, code))) => Err(classify(doing, &KafkaError::AdminOp(code), None)),
    }
}

/// Waits on this thread, which is nobody else's.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Thread(std::thread::Thread);
    impl std::task::Wake for Thread {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Thread(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// What a look from outside found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Partitions of the topic; `None` where there is none.
    pub partitions: Option<u32>,
}

/// Connects, signs in and looks at the topic, for `belayd check --connect`. Nothing is made.
///
/// # Errors
/// What went wrong, and what to do.
pub fn probe(config: &KafkaConfig, timeout: Duration) -> Result<Probe, SendError> {
    let consumer: BaseConsumer<Ears> = looking(config, "belayd-check")
        .create_with_context(Ears::default())
        .map_err(|error| classify("setting the client up", &error, None))?;
    Ok(Probe { partitions: look(&consumer, config, timeout)? })
}

//! What an error of Kafka means for the relay.
//!
//! Retry: it may pass by itself (a broker that is away, a leader that moves, a time-out). Fatal: it stays until a person changes
//! something (a topic that is missing, a right, a limit). Nothing is ever rejected for good: readings that Kafka does not take wait.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::sinks::{ErrorClass, SendError};

/// What waits for a person, the word for it, and what to do.
const FATAL: &[(Code, &str, &str)] = &[
    (Code::UnknownTopic, "unknown_topic", "create the topic, or set kafka.create_topic"),
    (Code::UnknownTopicOrPartition, "unknown_topic", "create the topic, or set kafka.create_topic"),
    (Code::UnknownPartition, "unknown_partition", "the topic has fewer partitions than a moment ago"),
    (Code::InvalidTopic, "invalid_topic", "choose another name for kafka.topic"),
    (Code::TopicAuthorizationFailed, "not_allowed", "allow belayd to write to the topic and to describe it"),
    (Code::GroupAuthorizationFailed, "not_allowed", "allow belayd to read the groups belayd-*"),
    (Code::TransactionalIdAuthorizationFailed, "not_allowed", "allow belayd to write to the transactional ids belayd-*"),
    (Code::ClusterAuthorizationFailed, "not_allowed", "allow belayd idempotent writes, or to create the topic"),
    (Code::Authentication, "sign_in", "look at kafka.username, kafka.password and kafka.mechanism"),
    (Code::SaslAuthenticationFailed, "sign_in", "look at kafka.username, kafka.password and kafka.mechanism"),
    (Code::UnsupportedSASLMechanism, "sign_in", "the broker does not know kafka.mechanism"),
    (Code::IllegalSASLState, "sign_in", "the broker expects another kafka.security"),
    (Code::SSL, "tls", "look at kafka.ca, kafka.cert and kafka.key"),
    (Code::MessageSizeTooLarge, "too_large", "raise the topic's max.message.bytes"),
    (Code::MessageBatchTooLarge, "too_large", "raise the topic's max.message.bytes"),
    (Code::OffsetMetadataTooLarge, "too_large", "raise the broker's offset.metadata.max.bytes to 64 or more"),
    (Code::InvalidTransactionTimeout, "broker_limit", "raise the broker's transaction.max.timeout.ms, or lower kafka.timeout"),
    (Code::InvalidReplicationFactor, "broker_limit", "lower kafka.replication to the number of brokers"),
    (Code::InvalidPartitions, "broker_limit", "lower kafka.partitions"),
    (Code::PolicyViolation, "broker_limit", "the broker's policy refuses the topic"),
    (Code::InvalidConfig, "broker_limit", "the broker refuses the topic's settings"),
    (Code::UnsupportedVersion, "version", "transactions need Kafka 2.5 or later"),
    (Code::UnsupportedFeature, "version", "transactions need Kafka 2.5 or later"),
    (Code::UnsupportedForMessageFormat, "version", "the topic's message format is too old for headers and transactions"),
];

/// What passes and has a word of its own.
const RETRY: &[(Code, &str)] = &[
    (Code::BrokerTransportFailure, "connect"),
    (Code::AllBrokersDown, "connect"),
    (Code::Resolve, "connect"),
    (Code::NetworkException, "connect"),
    (Code::OperationTimedOut, "timeout"),
    (Code::MessageTimedOut, "timeout"),
    (Code::TimedOutQueue, "timeout"),
    (Code::RequestTimedOut, "timeout"),
    (Code::Fenced, "fenced"),
    (Code::ProducerFenced, "fenced"),
    (Code::InvalidProducerEpoch, "fenced"),
    (Code::NotEnoughReplicas, "replicas"),
    (Code::NotEnoughReplicasAfterAppend, "replicas"),
    (Code::LeaderNotAvailable, "leader"),
    (Code::NotLeaderForPartition, "leader"),
    (Code::CoordinatorNotAvailable, "coordinator"),
    (Code::CoordinatorLoadInProgress, "coordinator"),
    (Code::NotCoordinator, "coordinator"),
    (Code::ConcurrentTransactions, "coordinator"),
    (Code::KafkaStorageError, "broker_disk"),
];

/// The verdict on `error`, which came while `doing`. `heard` is what the client last said of its connections: a time-out, or that no broker
/// could be reached, alone does not tell why.
pub fn classify(doing: &str, error: &KafkaError, heard: Option<(Code, String)>) -> SendError {
    let text = match error {
        // Display of these says the operation and the broker's word, never a secret.
        KafkaError::Transaction(inner) => inner.string(),
        KafkaError::ClientConfig(_, text, key, _) => format!("{text} ({key})"),
        other => other.to_string(),
    };
    let code = match error {
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) => {
            let message = format!("{doing}: {text}");
            return SendError { class: ErrorClass::Fatal, error_type: "configuration", message };
        }
        KafkaError::Transaction(inner) => inner.code(),
        other => other.rdkafka_error_code().unwrap_or(Code::Unknown),
    };
    let mut verdict = of_code(code, format!("{doing}: {text}"));
    if let Some((cause, said)) = heard
        && ["timeout", "connect"].contains(&verdict.error_type)
    {
        // The broker's refusal of a certificate comes after the handshake, and is told as a connection that broke; now and then our own
        // refusal of the broker's is as well.
        let is_refusal = said.contains(" alert ") || said.contains("certificate verify failed");
        let refused = cause == Code::BrokerTransportFailure && said.contains("SSL routines") && is_refusal;
        let message = format!("{}; {said}", verdict.message);
        verdict = of_code(if refused { Code::SSL } else { cause }, message);
    }
    verdict
}

fn of_code(code: Code, text: String) -> SendError {
    if let Some((_, error_type, hint)) = FATAL.iter().find(|(known, ..)| *known == code) {
        return SendError { class: ErrorClass::Fatal, error_type, message: format!("{text}: {hint}") };
    }
    let error_type = RETRY.iter().find(|(known, _)| *known == code).map_or("broker", |(_, word)| word);
    SendError { class: ErrorClass::Retry { after: None }, error_type, message: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(code: Code) -> (ErrorClass, &'static str) {
        let error = classify("sending", &KafkaError::MessageProduction(code), None);
        (error.class, error.error_type)
    }

    #[test]
    fn what_a_person_must_change_is_fatal_and_the_rest_passes() {
        assert_eq!(verdict(Code::TopicAuthorizationFailed), (ErrorClass::Fatal, "not_allowed"));
        assert_eq!(verdict(Code::UnknownTopicOrPartition), (ErrorClass::Fatal, "unknown_topic"));
        assert_eq!(verdict(Code::MessageSizeTooLarge), (ErrorClass::Fatal, "too_large"));
        assert_eq!(verdict(Code::MessageTimedOut), (ErrorClass::Retry { after: None }, "timeout"));
        assert_eq!(verdict(Code::NotEnoughReplicas), (ErrorClass::Retry { after: None }, "replicas"));
        assert_eq!(verdict(Code::Unknown), (ErrorClass::Retry { after: None }, "broker"));
    }

    #[test]
    fn no_code_stands_in_both_tables_or_twice() {
        let mut seen: Vec<Code> = FATAL.iter().map(|(code, ..)| *code).chain(RETRY.iter().map(|(code, _)| *code)).collect();
        let all = seen.len();
        seen.sort_unstable_by_key(|code| *code as i32);
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn silence_takes_the_cause_that_was_heard() {
        for code in [Code::OperationTimedOut, Code::BrokerTransportFailure] {
            let heard = Some((Code::Authentication, "sasl_plain: invalid credentials".to_owned()));
            let verdict = classify("opening", &KafkaError::Global(code), heard);
            assert_eq!((verdict.class, verdict.error_type), (ErrorClass::Fatal, "sign_in"));
            assert!(verdict.message.contains("invalid credentials"), "{}", verdict.message);
        }
        for (said, error_type) in [
            ("Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required", "tls"),
            (
                "ssl://127.0.0.1:19683/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 3ms in state SSL_HANDSHAKE)",
                "tls",
            ),
            ("Receive failed: error:0A000126:SSL routines::unexpected eof while reading", "connect"),
        ] {
            let heard = Some((Code::BrokerTransportFailure, said.to_owned()));
            assert_eq!(
                classify("opening", &KafkaError::Global(Code::BrokerTransportFailure), heard).error_type,
                error_type,
                "{said}"
            );
        }
    }
}

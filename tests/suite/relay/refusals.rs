//! Errors that a broker answers with, injected by librdkafka's mock cluster: each has its verdict. Whether transactions hold is not asked
//! here, where there is no real broker.

use belayd::{
    config::{KafkaConfig, parse},
    sinks::{ErrorClass, SendError, kafka::Link},
};
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey as Api, RDKafkaRespErr as Answer},
};

const RETRY: ErrorClass = ErrorClass::Retry { after: None };

fn config(cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>, more: &str) -> KafkaConfig {
    let text = format!("[kafka]\nbrokers = \"{}\"\ntimeout = \"2s\"\n{more}", cluster.bootstrap_servers());
    parse(&text).expect("no fault").kafka.expect("a relay")
}

fn send(link: &mut Link) -> Result<(), SendError> {
    link.transact("mark", 7, |outgoing| outgoing.send(0, "e", b"{}", &[("seq", b"1")]))
}

#[test]
fn each_answer_of_a_broker_has_its_verdict() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("engine", 2, 1).expect("a topic");
    let config = config(&cluster, "");
    for (step, answer, expected) in [
        (Api::InitProducerId, Answer::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, (ErrorClass::Fatal, "not_allowed")),
        (Api::InitProducerId, Answer::RD_KAFKA_RESP_ERR_INVALID_TRANSACTION_TIMEOUT, (ErrorClass::Fatal, "broker_limit")),
        (Api::Produce, Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, (ErrorClass::Fatal, "not_allowed")),
        (Api::Produce, Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, (ErrorClass::Fatal, "too_large")),
        (Api::Produce, Answer::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, (RETRY, "fenced")),
        (Api::AddPartitionsToTxn, Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, (ErrorClass::Fatal, "not_allowed")),
        (Api::TxnOffsetCommit, Answer::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, (ErrorClass::Fatal, "not_allowed")),
        (Api::TxnOffsetCommit, Answer::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE, (ErrorClass::Fatal, "too_large")),
        (Api::EndTxn, Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED, (RETRY, "fenced")),
    ] {
        cluster.request_errors(step, &[answer]);
        let result = Link::open(&config, "lane").and_then(|mut link| send(&mut link));
        let error = result.expect_err("refused");
        assert_eq!((error.class, error.error_type), expected, "{step:?} {answer:?}: {error}");
        cluster.clear_request_errors(step);
        let mended = Link::open(&config, "lane").and_then(|mut link| send(&mut link));
        mended.unwrap_or_else(|error| panic!("after {step:?} {answer:?}: {error}"));
    }
}

#[test]
fn what_passes_by_itself_is_not_even_noticed() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("engine", 2, 1).expect("a topic");
    let config = config(&cluster, "");
    for (step, answer) in [
        (Api::Produce, Answer::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        (Api::Produce, Answer::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS),
        (Api::AddPartitionsToTxn, Answer::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (Api::EndTxn, Answer::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
    ] {
        cluster.request_errors(step, &[answer]);
        let sent = Link::open(&config, "lane").and_then(|mut link| send(&mut link));
        sent.unwrap_or_else(|error| panic!("{step:?} {answer:?}: {error}"));
    }
}

#[test]
fn a_cluster_that_goes_away_is_a_matter_of_time_and_a_missing_topic_of_a_person() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("engine", 2, 1).expect("a topic");
    let config = config(&cluster, "");
    let mut link = Link::open(&config, "lane").expect("it opens");
    send(&mut link).expect("it sends");
    cluster.broker_down(1).expect("down");
    let error = send(&mut link).expect_err("nobody answers");
    assert_eq!(error.class, RETRY, "{error}");
    assert!(["timeout", "connect"].contains(&error.error_type), "{error}");
    let error = Link::open(&config, "lane").expect_err("nobody answers");
    assert_eq!(error.class, RETRY, "{error}");
}

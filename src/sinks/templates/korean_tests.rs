//! The Korean of belayd's own conditions: whole, found again, and without a word left in English.

use super::*;

/// Whether somebody who reads Korean alone misses nothing but names: of keys, files, commands and products.
fn is_korean(text: &str) -> bool {
    let is_name = |word: &str| {
        let names = [
            "belayd",
            "Redis",
            "Kafka",
            "memory",
            "journal",
            "pid",
            "HTTP",
            "GET",
            "verify",
            "failures",
            "causes",
            "list",
            "appendfsync",
            "everysec",
            "no",
            "appendonly",
            "noeviction",
            "CPU",
            "hook",
            "io",
        ];
        names.contains(&word) || word.contains(['.', '/', '_', '-'])
    };
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "./_-".contains(c)));
    let mut words = words.map(|word| word.trim_matches('.')).filter(|word| word.chars().any(|c| c.is_ascii_alphabetic()));
    text.chars().any(|c| ('가'..='힣').contains(&c)) && words.all(is_name)
}

#[test]
fn every_sentence_is_found_again_filled_and_korean_throughout() {
    for (english, korean) in SENTENCES {
        let figures = OF_FIGURES.contains(english);
        let text = english.split("{}").enumerate().fold(String::new(), |text, (number, literal)| match number {
            0 => literal.to_owned(),
            1 if figures => format!("{text}Fill of the buffer{literal}"),
            _ => format!("{text}{number}{literal}"),
        });
        let told = sentence("database-down", &text);
        assert!(is_korean(&told) && !told.contains(['{', '}']), "{text}: {told}");
        // What is said of the faults themselves is in English; the Korean sentence says where they stand.
        let dropped = usize::from(english.starts_with("the integrity check found"));
        let all = (0..english.matches("{}").count() - dropped).all(|number| korean.contains(&format!("{{{number}}}")));
        assert!(all, "{korean} leaves something out of {english}");
    }
    assert!(NAMES.iter().chain(FIGURES).all(|(_, korean)| is_korean(korean)));
}

#[test]
fn sentences_within_sentences_are_korean_too_and_what_others_say_stays() {
    let told = |text: &str| sentence("x", text);
    assert_eq!(
        told("the database does not answer: timeout; tried for 5 s; 12 readings wait in the buffer"),
        "데이터베이스가 응답하지 않습니다: timeout; tried for 5 s. 버퍼에서 기다리는 측정값: 12건."
    );
    assert_eq!(told("CPU of the host: 93.1 %, limit 80.0 %"), "호스트의 CPU 사용률: 93.1%, 한도 80.0%");
    assert_eq!(told("CPU of the host is back at 12.0 %"), "호스트의 CPU 사용률: 12.0%(으)로 돌아왔습니다.");
    assert_eq!(
        told(
            "The journal: 460 kB of 1 MB, full in about 9 min at the rate of the last minutes; then senders get 503: bring the \
              database back, or raise buffer.journal_bytes"
        ),
        "저널 사용량: 1 MB 중 460 kB. 최근 몇 분의 속도라면 약 9분 뒤에 가득 찹니다. 그러면 보내는 쪽은 503을 받습니다. 데이터베이스를 되살리거나 \
         buffer.journal_bytes를 늘리세요."
    );
    let end = |number: u32, most: &str| {
        format!(
            "; acknowledged readings may be gone behind number {number} of stream s{number}: how many is not known{most}, and no other \
             count has them"
        )
    };
    let damaged = format!(
        "2 damaged places in the journal, 70 bytes: what could not be read is set aside in journal/quarantine, the rest goes on; look at \
         the disk and at `belayd journal verify`{}{}",
        end(7, ", in at most 90 bytes"),
        end(8, "")
    );
    let korean = told(&damaged);
    assert!(korean.contains("스트림 s7의 7번 뒤로") && korean.contains("(최대 90바이트 안)"), "{korean}");
    assert!(korean.contains("스트림 s8의 8번 뒤로") && !korean.contains("known"), "{korean}");
    let refused = "the control store refused 1 alerts for ever and they were set aside; the first: cpu-high of host began (CPU of the host: \
                   93.1 %, limit 80.0 %); full";
    assert!(
        told(refused).ends_with("첫 번째: host의 cpu-high, 발생(호스트의 CPU 사용률: 93.1%, 한도 80.0%). full"),
        "{}",
        told(refused)
    );
    let refused = "the control store refused 2 alerts for ever and they were set aside; the first: cpu-high of i2 is over (instance i2 \
                   (host h, pid 7)); CHECK failed";
    assert!(
        told(refused).ends_with("첫 번째: i2의 cpu-high, 해소(instance i2 (host h, pid 7)). CHECK failed"),
        "{}",
        told(refused)
    );
    assert!(
        told("Redis takes no readings: io; they go to the journal of this host until it does, and none is lost")
            .contains("손실은 없습니다")
    );
}

#[test]
fn what_is_not_known_stays_behind_what_the_alert_is_called() {
    assert_eq!(sentence("cpu-high", "a sentence of an older belayd"), "CPU 사용률 높음: a sentence of an older belayd");
    assert_eq!((sentence("cpu-high", ""), sentence("mine", "text")), ("CPU 사용률 높음".to_owned(), "text".to_owned()));
    assert_eq!((label("journal-damaged"), label("mine")), ("저널 손상(journal-damaged)".to_owned(), "mine".to_owned()));
    assert_eq!(sentence("cpu-high", "Something: 7, limit 8"), "CPU 사용률 높음: Something: 7, limit 8", "no figure of ours");
}

#[test]
fn what_stands_in_one_hole_is_not_filled_once_more() {
    let told = sentence("database-down", "the database does not answer: {1} {0}; 12 readings wait in the buffer");
    assert_eq!(told, "데이터베이스가 응답하지 않습니다: {1} {0}. 버퍼에서 기다리는 측정값: 12건.");
    let lost = "Redis has lost an unknown number of readings of stream 7 that it had acknowledged and the database had not: its data was \
                flushed, evicted, not synced, or a replica took over that lacked them; look at its persistence (docs/TIERS.md)";
    assert!(sentence("redis-data-lost", lost).contains("잃었습니다(건수: 알 수 없음)."), "{}", sentence("redis-data-lost", lost));
}

//! belayd's own conditions in Korean: what their alerts are called, and the sentences that they are told with.
//!
//! In: the English text of an alert of kind `system`, as it is stored and shown. Out: the same in Korean. An alert is raised in one language,
//! because it is kept, compared and sent to machines; people get it in the language of their mails. A house test holds each English sentence
//! here against the code that makes it, and the names against the operations manual. Pure.

/// What an alert is called.
pub const NAMES: &[(&str, &str)] = &[
    ("alert-refused", "경보 기록 거부"),
    ("buffer-high", "버퍼 사용량 높음"),
    ("buffer-unreadable", "버퍼 읽기 불가"),
    ("conservation-violation", "측정값 수량 불일치"),
    ("cpu-high", "CPU 사용률 높음"),
    ("database-down", "데이터베이스 응답 없음"),
    ("deadman-failed", "데드맨 신호 실패"),
    ("delivery-failed", "발송 실패"),
    ("delivery-overdue", "발송 지연"),
    ("directory-restored", "이전 데이터 디렉터리로 복원됨"),
    ("disk-filling", "디스크가 곧 가득 참"),
    ("disk-high", "디스크 사용량 높음"),
    ("duty-failed", "주기 작업 실패"),
    ("instance-dead", "인스턴스 응답 없음"),
    ("instance-twin", "데이터 디렉터리 중복 사용"),
    ("integrity", "무결성 오류"),
    ("journal-damaged", "저널 손상"),
    ("journal-disk-full", "저널 디스크 가득 참"),
    ("journal-gone", "저널 없음"),
    ("journal-failed", "저널 쓰기 불가"),
    ("journal-filling", "저널이 곧 가득 참"),
    ("journal-sync-failed", "저널 동기화 실패"),
    ("journal-incomplete", "저널 측정값 누락"),
    ("memory-high", "메모리 사용량 높음"),
    ("notification-missing", "알림 누락"),
    ("readings-lost", "측정값 손실"),
    ("recovery-late", "복구 지연"),
    ("redis-copy-missing", "Redis 사본 없음"),
    ("redis-data-lost", "Redis 데이터 손실"),
    ("redis-down", "Redis 사용 불가"),
    ("redis-forgets", "Redis 보존 안 됨"),
    ("redis-full", "Redis 가득 참"),
    ("redis-incomplete", "Redis 측정값 누락"),
    ("redis-small", "Redis 메모리 한도 부족"),
    ("redis-unrelayed-removed", "중계 전 Redis 사본 삭제"),
    ("sink-down", "발신 경로 중단"),
    ("source-failing", "수집원 읽기 실패"),
    ("store-restored", "이전 데이터베이스로 복원됨"),
    ("unclean-stop", "비정상 종료"),
];

/// What a figure is of.
pub const FIGURES: &[(&str, &str)] = &[
    ("CPU of the host", "호스트의 CPU 사용률"),
    ("Memory of the host", "호스트의 메모리 사용량"),
    ("Disk of the data directory", "데이터 디렉터리의 디스크 사용량"),
    ("Fill of the buffer", "버퍼 사용량"),
    ("The journal", "저널 사용량"),
    ("Readings that cannot be accounted for", "행방을 알 수 없는 측정값"),
    ("Acknowledged readings that are gone", "접수 후 사라진 측정값"),
    ("Readings that were not stored", "저장되지 못한 측정값"),
    ("The source could not be read", "수집원 읽기 실패"),
    ("The oldest due delivery has waited to be taken up", "발송할 때가 된 알림의 최장 대기"),
    ("Nobody has tried to store what waits in the buffer", "버퍼에서 기다리는 측정값의 저장을 시도하지 않은 시간"),
    ("The database is back, and what waited is still being stored", "데이터베이스 복귀 후 밀린 측정값을 저장하는 시간"),
];

/// Sentences and their parts: `{}` stands for what changes, in the English one in its order and in the Korean one by number.
pub const SENTENCES: &[(&str, &str)] = &[
    (
        "the database does not answer: {}; {} readings wait in the buffer",
        "데이터베이스가 응답하지 않습니다: {0}. 버퍼에서 기다리는 측정값: {1}건.",
    ),
    (
        "the database answers again after {} s; {} readings are being written",
        "데이터베이스가 {0}초 만에 다시 응답합니다. 밀린 측정값 {1}건을 저장하고 있습니다.",
    ),
    ("the database answers", "데이터베이스가 응답합니다."),
    (
        "the run before did not end in order; readings that it had acknowledged at level memory and not stored are lost, at most {}",
        "이전 실행이 정상적으로 끝나지 않았습니다. memory 수준으로 접수하고 저장하지 못한 측정값은 손실되었습니다(최대 {0}건).",
    ),
    ("the run before ended in order", "이전 실행이 정상적으로 끝났습니다."),
    (
        "what waits in lane {} of the buffer cannot be read ({}): the other lanes go on, this one is tried again; look at the disk. Of tier \
         journal, what cannot be read for 30 s is passed over, counted, and kept in journal/quarantine",
        "버퍼 {0}번 레인에서 기다리는 측정값을 읽을 수 없습니다({1}). 다른 레인은 계속 진행하고 이 레인은 다시 시도합니다. 디스크를 점검하세요. \
         journal 계층에서 30초 동안 읽지 못한 것은 건너뛰어 집계하고 journal/quarantine에 보관합니다.",
    ),
    ("no answer for {} s", "{0}초 동안 응답 없음"),
    ("lane {} of the buffer can be read again", "버퍼 {0}번 레인을 다시 읽을 수 있습니다."),
    ("the buffer has no such lane any more", "버퍼에 이 레인이 더 이상 없습니다."),
    (
        "the database stands behind what this directory has stored: an older one was put in its place; {}",
        "데이터베이스가 이 디렉터리가 저장한 것보다 뒤처져 있습니다. 이전 데이터베이스로 바뀌었습니다. {0}",
    ),
    ("what it had since is stored again from where a copy is kept", "그 뒤에 저장되었던 것은 남아 있는 사본에서 다시 저장합니다."),
    (
        "{} readings that it had are lost (see \"Backup and restore\" in the operations manual)",
        "저장되어 있던 측정값 {0}건이 손실되었습니다(docs/OPERATIONS.md 참고).",
    ),
    (
        "the database knows another history of stream {}: an older data directory was put in place, or a copy of it runs elsewhere; what \
         waits goes on as stream {}, and what is in the database already is counted as duplicate",
        "데이터베이스가 아는 스트림 {0}의 이력이 다릅니다. 이전 데이터 디렉터리로 바뀌었거나 그 사본이 다른 곳에서 실행 중입니다. 기다리는 측정값은 \
         스트림 {1}(으)로 이어지며, 데이터베이스에 이미 있는 것은 중복으로 집계합니다.",
    ),
    (
        "the data directory was put back from a backup, the database was not: what waited goes on under new streams, and what the database \
         has already is counted as duplicate; readings that were acknowledged after the backup and were not in the database are lost, and \
         their receipts say so; how many is not known",
        "데이터 디렉터리만 백업에서 복원되었고 데이터베이스는 그대로입니다. 기다리던 측정값은 새 스트림으로 이어지며, 데이터베이스에 이미 있는 것은 중복으로 \
         집계합니다. 백업 이후에 접수되어 데이터베이스에 없던 측정값은 손실되었고 접수증에 그렇게 표시됩니다. 그 수는 알 수 없습니다.",
    ),
    (
        "the journal was begun anew, and the database knows streams that it should have gone on with (each with the last number that is stored): \
         {}; journal/ in the data directory was removed or emptied, or is not mounted; acknowledged readings that were not stored yet are gone \
         with it, how many is not known; where the folder still exists, put it back (\"A damaged journal\" in the operations manual)",
        "저널이 새로 시작되었으나 데이터베이스는 저널이 이어 가야 할 스트림을 알고 있습니다(스트림과 마지막으로 저장된 번호): {0}. 데이터 디렉터리의 journal/이 삭제되었거나 비워졌거나 \
         마운트되지 않았습니다. 접수하고 아직 저장하지 못한 측정값은 함께 사라졌으며 그 수는 알 수 없습니다. 폴더가 남아 있으면 제자리에 되돌리세요(docs/OPERATIONS.md 참고).",
    ),
    ("belayd was started again", "belayd가 다시 시작되었습니다."),
    ("belayd was started anew", "belayd가 새로 시작되었습니다."),
    ("readings do not wait in Redis any more", "측정값이 더 이상 Redis에서 기다리지 않습니다."),
    ("readings do not wait in the journal any more", "측정값이 더 이상 저널에서 기다리지 않습니다."),
    ("there is no such sink any more", "이 발신 경로가 더 이상 없습니다."),
    ("Redis takes no readings: {}; {}", "Redis가 측정값을 받지 않습니다: {0}. {1}"),
    (
        "they are in the journal of this host and in the database until it does, without a third copy",
        "복귀할 때까지 이 호스트의 저널과 데이터베이스에만 있고 세 번째 사본은 없습니다.",
    ),
    (
        "they go to the journal of this host until it does, and none is lost",
        "복귀할 때까지 이 호스트의 저널에 기록하며 손실은 없습니다.",
    ),
    ("Redis takes readings again after {} s", "Redis가 {0}초 만에 다시 측정값을 받습니다."),
    (
        "Redis does not keep what it acknowledges, so readings are acknowledged as \"memory\": it may lose {}",
        "Redis가 접수한 것을 보존하지 않으므로 측정값은 memory 수준으로 접수합니다. 잃을 수 있는 것: {0}",
    ),
    ("Redis keeps what it acknowledges", "Redis가 접수한 것을 보존합니다."),
    (
        "whatever Redis evicts: its maxmemory-policy throws streams away when its memory is full; set noeviction",
        "Redis가 내보내는 모든 것. 메모리가 가득 차면 maxmemory-policy에 따라 스트림을 버립니다. noeviction으로 설정하세요.",
    ),
    (
        "everything that Redis holds and the database has not, when Redis ends: appendonly is off",
        "Redis가 끝날 때 데이터베이스에 아직 없는 모든 것. appendonly가 꺼져 있습니다.",
    ),
    (
        "nothing that was acknowledged, unless the disk of Redis is lost, lies about syncs, or a replica takes over that lacks the newest",
        "접수한 것은 잃지 않습니다. Redis의 디스크를 잃거나 디스크가 동기화를 거짓으로 알리거나 최신 데이터가 없는 복제본이 이어받는 경우는 예외입니다.",
    ),
    (
        "up to 2 s of what was acknowledged when the host of Redis loses power (more, where a sync takes longer), when Redis is killed \
         during a sync, or a replica takes over (appendfsync everysec)",
        "Redis 호스트의 전원이 끊기거나(동기화가 더 오래 걸리면 그만큼 더), 동기화 중에 Redis가 강제 종료되거나, 복제본이 이어받을 때 접수한 것 가운데 최대 2초분(appendfsync everysec)",
    ),
    (
        "what the kernel had not written (half a minute, say) when the host of Redis loses power (appendfsync no)",
        "Redis 호스트의 전원이 끊길 때 커널이 아직 쓰지 않은 것, 약 30초분(appendfsync no)",
    ),
    (
        "redis.stream_bytes is reached by readings that the database has not yet; further ones stay in the journal",
        "데이터베이스에 아직 없는 측정값이 redis.stream_bytes에 이르렀습니다. 이후의 것은 저널에 남습니다.",
    ),
    (
        "Redis removes copies before their readings are relayed, because redis.stream_bytes or its memory is reached: the database has them and the relay \
         goes on from there, but they are in one place only; raise redis.stream_bytes, or see why the relay is behind",
        "redis.stream_bytes나 Redis의 메모리 한도에 이르러 중계되기 전의 측정값 사본이 Redis에서 삭제되고 있습니다. 데이터베이스에 있고 중계는 거기서 계속되지만 한 곳에만 남아 있습니다. \
         redis.stream_bytes를 늘리거나 중계가 늦는 이유를 점검하세요.",
    ),
    (
        "what Redis would remove next is relayed, and nothing before its relay was removed for a minute",
        "Redis에서 다음에 삭제될 것은 이미 중계되었고, 지난 1분 동안 중계 전에 삭제된 것이 없습니다.",
    ),
    ("there is room for readings in Redis again", "Redis에 측정값을 둘 자리가 다시 생겼습니다."),
    (
        "Redis has lost {} readings of stream {} that it had acknowledged and the database had not: its data was flushed, evicted, not \
         synced, or a replica took over that lacked them; look at its persistence (docs/TIERS.md)",
        "데이터베이스에 아직 없는 스트림 {1}의 접수된 측정값을 Redis가 잃었습니다(건수: {0}). 데이터가 비워졌거나 내보내졌거나 동기화되지 않았거나, 그것이 없는 \
         복제본이 이어받았습니다. Redis의 보존 설정을 점검하세요(docs/TIERS.md).",
    ),
    ("an unknown number of", "알 수 없음"),
    (
        "Redis has lost the stream {} of the instance {}, which does not run: what that had acknowledged and the database had not is in its \
         journal (tier triple) or nowhere, and how much that was only its next start may tell; look at the persistence of Redis (docs/TIERS.md)",
        "실행 중이 아닌 인스턴스 {1}의 스트림 {0}을(를) Redis가 잃었습니다. 그 인스턴스가 접수했고 데이터베이스에 아직 없는 측정값은 그 인스턴스의 저널에만 \
         있거나 아무 데도 없습니다. 건수는 그 인스턴스가 다시 시작해야 알 수 있습니다. Redis의 보존 설정을 점검하세요(docs/TIERS.md).",
    ),
    (
        "Redis has lost its copy of {} readings of stream {}, and the journal holds them no more: the database has the only one, and none is \
         lost while it is whole; look at the persistence of Redis (docs/TIERS.md), and make a backup",
        "Redis가 스트림 {1}의 측정값 사본을 잃었고(건수: {0}) 저널에도 더 이상 없습니다. 데이터베이스에만 있으며 데이터베이스가 온전한 동안은 손실이 없습니다. \
         Redis의 보존 설정을 점검하고(docs/TIERS.md) 백업하세요.",
    ),
    (
        "Redis has been away for so long that buffer.journal_bytes is reached: {} bytes of readings were dropped from the journal before \
         Redis had them; the database has the only copy",
        "Redis가 오래 응답하지 않아 buffer.journal_bytes에 이르렀습니다. Redis로 복사되기 전에 저널에서 측정값 {0}바이트를 비웠습니다. 데이터베이스에만 남아 있습니다.",
    ),
    (
        "the disk did not take a write of the journal ({}): {} readings were refused and their senders told, {} that had been acknowledged \
         at level memory are lost; look at the disk",
        "디스크가 저널 쓰기를 받지 않았습니다({0}). 측정값 {1}건은 거절하고 보낸 쪽에 알렸으며, memory 수준으로 접수한 {2}건은 손실되었습니다. 디스크를 점검하세요.",
    ),
    ("the disk has taken every write of the journal for 10 minutes", "10분 동안 디스크가 저널 쓰기를 모두 받았습니다."),
    (
        "{} damaged places in the journal, {} bytes: what could not be read is set aside in journal/quarantine, the rest goes on; look at \
         the disk and at `belayd journal verify`{}",
        "저널에서 손상된 곳 {0}군데, {1}바이트를 찾았습니다. 읽지 못한 것은 journal/quarantine에 따로 두고 나머지는 계속 진행합니다. 디스크와 \
         `belayd journal verify` 결과를 점검하세요.{2}",
    ),
    (
        "; acknowledged readings may be gone behind number {} of stream {}: how many is not known{}, and no other count has them",
        " 스트림 {1}의 {0}번 뒤로 접수된 측정값이 사라졌을 수 있습니다. 그 수는 알 수 없으며{2} 다른 집계에도 없습니다.",
    ),
    (", in at most {} bytes", "(최대 {0}바이트 안)"),
    (
        "no new damage was found in the journal for a day; what was set aside is still in journal/quarantine",
        "하루 동안 저널에서 새로운 손상이 없었습니다. 따로 둔 것은 journal/quarantine에 그대로 있습니다.",
    ),
    (
        "the file system of the journal is full and readings are refused (507): make room; belayd goes on by itself",
        "저널의 파일 시스템이 가득 차 측정값을 거절합니다(507). 공간을 비우면 belayd가 스스로 이어 갑니다.",
    ),
    ("the file system of the journal has room again", "저널의 파일 시스템에 다시 공간이 생겼습니다."),
    ("the journal is refused for another reason than room", "공간이 아닌 다른 까닭으로 저널에 쓸 수 없습니다."),
    (
        "no segment of the journal can be made ({}) and readings are refused (503): see that journal/ in the data directory is there, \
         belongs to belayd and is not mounted read-only, and look at the disk and the limit of open files; it is tried again ten times a \
         second and goes on by itself",
        "저널의 세그먼트를 만들 수 없어({0}) 측정값을 거절합니다(503). 데이터 디렉터리의 journal/이 있는지, belayd의 것인지, 읽기 전용으로 마운트되지 \
         않았는지 확인하고 디스크와 열린 파일 수의 한도를 점검하세요. 1초에 열 번 다시 시도하며 스스로 이어 갑니다.",
    ),
    ("the file system of the journal is full", "저널의 파일 시스템이 가득 찼습니다."),
    (
        "the disk would take a segment of the journal; buffer.journal_bytes is reached",
        "디스크는 저널의 세그먼트를 받을 수 있으나 buffer.journal_bytes에 이르렀습니다.",
    ),
    ("the disk takes segments of the journal again", "디스크가 저널의 세그먼트를 다시 받습니다."),
    (
        "{}: {} of {}, full in about {} at the rate of the last minutes; {}",
        "{0}: {2} 중 {1}. 최근 몇 분의 속도라면 약 {3} 뒤에 가득 찹니다. {4}",
    ),
    (
        "then belayd cannot write any more and senders get 507: make room",
        "그러면 belayd는 더 쓸 수 없고 보내는 쪽은 507을 받습니다. 공간을 비우세요.",
    ),
    (
        "then senders get 503: bring the database back, or raise buffer.journal_bytes",
        "그러면 보내는 쪽은 503을 받습니다. 데이터베이스를 되살리거나 buffer.journal_bytes를 늘리세요.",
    ),
    ("source {} cannot be read: {}", "수집원 {0}을(를) 읽을 수 없습니다: {1}"),
    ("no answer", "응답 없음"),
    ("Source {} failed {} times in a row: {}.", "수집원 {0}에서 {1}번 잇달아 실패했습니다: {2}."),
    ("Source {} answers.", "수집원 {0}이(가) 응답합니다."),
    ("sink {} failed several times in a row and is paused: {}", "발신 경로 {0}에서 여러 번 잇달아 실패하여 잠시 멈췄습니다: {1}"),
    ("sink {} works again", "발신 경로 {0}이(가) 다시 작동합니다."),
    (
        "Kafka does not take readings, they wait in the database: {}",
        "Kafka가 측정값을 받지 않아 측정값이 데이터베이스에서 기다립니다: {0}",
    ),
    ("Kafka takes readings", "Kafka가 측정값을 받습니다."),
    (
        "deliveries to sink {} could not be made and wait for a decision (how many: belayd failures causes)",
        "발신 경로 {0}(으)로 보내지 못한 것이 사람의 결정을 기다립니다(건수: belayd failures causes).",
    ),
    ("no delivery to sink {} waits for a decision any more", "발신 경로 {0}에 결정을 기다리는 것이 더 이상 없습니다."),
    (
        "the integrity check found {} readings missing, {} stored twice, {} faults in the ledger ({} set right) and {} among the deliveries to Kafka: {}",
        "무결성 검사에서 사라진 측정값 {0}건, 두 번 저장된 것 {1}건, 원장 오류 {2}건(바로잡은 것 {3}건), Kafka로 가는 발신 오류 {4}건을 찾았습니다. 자세한 내용은 GET /admin/duties에 있습니다.",
    ),
    (
        "the journal lacks {} readings that wait for the database, first the numbers {} to {} of stream {}: somebody removed or exchanged a \
         file in server.data_dir, or the disk damaged it; put back what was removed before the database gets there",
        "데이터베이스를 기다리는 측정값 {0}건이 저널에 없습니다(처음 빠진 것: 스트림 {3}의 {1}~{2}번). server.data_dir의 파일을 누가 지우거나 바꾸었거나 디스크에서 \
         손상되었습니다. 데이터베이스가 거기에 이르기 전에 지운 파일을 되돌려 놓으세요.",
    ),
    (
        "the journal lacks {} readings that wait for the database, in many places",
        "데이터베이스를 기다리는 측정값 {0}건이 저널의 여러 곳에서 빠졌습니다.",
    ),
    (
        "the journal was read, {} readings, and lacks none of those that wait for the database",
        "저널을 읽었으며(측정값 {0}건) 데이터베이스를 기다리는 것 가운데 빠진 것이 없습니다.",
    ),
    (
        "Redis was compared with what it should hold, {} readings, and lacks none",
        "Redis에 있어야 할 것과 비교했으며(읽은 것: {0}건) 빠진 것이 없습니다.",
    ),
    (
        "the integrity check compared {} readings with the ledger and found nothing amiss",
        "무결성 검사에서 측정값 {0}건을 원장과 비교했으며 이상이 없습니다.",
    ),
    (
        "{} notices to sink {} have been due for longer than alerts.overdue_after and nothing explains why",
        "발신 경로 {1}(으)로 갈 알림 {0}건이 alerts.overdue_after보다 오래 나가지 못했고 그 까닭을 알 수 없습니다.",
    ),
    ("nothing to sink {} is overdue any more", "발신 경로 {0}에 늦은 알림이 더 이상 없습니다."),
    (
        "{} open alerts had not been told and nothing says why; that is done now: look for who wrote to the control store",
        "열린 경보 {0}건이 까닭 없이 알려지지 않았습니다. 이제 알렸습니다. 제어 저장소를 누가 고쳤는지 확인하세요.",
    ),
    ("every open alert has been told, or says why not", "열린 경보는 모두 알렸거나 알리지 않은 까닭이 적혀 있습니다."),
    ("the dead-man ping did not arrive {} times in a row: {}", "데드맨 신호가 {0}번 잇달아 닿지 않았습니다: {1}"),
    ("the receiver answered HTTP {}", "받는 쪽의 응답 HTTP {0}"),
    ("the dead-man ping arrives", "데드맨 신호가 닿습니다."),
    ("no dead-man ping is configured", "데드맨 신호가 설정되어 있지 않습니다."),
    (
        "the control store refused {} alerts for ever and they were set aside; the first: {} of {} began ({}); {}",
        "제어 저장소가 경보 {0}건을 끝내 거부하여 따로 두었습니다. 첫 번째: {2}의 {1}, 발생({3}). {4}",
    ),
    (
        "the control store refused {} alerts for ever and they were set aside; the first: {} of {} is over ({}); {}",
        "제어 저장소가 경보 {0}건을 끝내 거부하여 따로 두었습니다. 첫 번째: {2}의 {1}, 해소({3}). {4}",
    ),
    ("the periodic duty {} failed {} times in a row: {}", "주기 작업 {0}이(가) {1}번 잇달아 실패했습니다: {2}"),
    ("the periodic duty {} works", "주기 작업 {0}이(가) 작동합니다."),
    (
        "{} % of the readings that do not wait any more are stored, the level is {} %: see belayd failures list, and \
         belayd_readings_lost_total for what is gone",
        "처리가 끝난 측정값의 {0}%가 저장되었습니다. 기준은 {1}%입니다. belayd failures list와, 사라진 것은 belayd_readings_lost_total을 확인하세요.",
    ),
    (
        "instance {} (host {}, pid {}) has not been heard of since {}: what it shares with others is done by them; readings that wait in \
         its data directory wait for its return",
        "인스턴스 {0}(호스트 {1}, pid {2})의 신호가 {3} 이후 없습니다. 함께 하던 일은 다른 인스턴스가 맡습니다. 그 데이터 디렉터리에서 기다리는 측정값은 \
         돌아올 때까지 기다립니다.",
    ),
    (
        "instance {} is back, has stopped in order, or was forgotten",
        "인스턴스 {0}이(가) 돌아왔거나, 정상적으로 끝났거나, 목록에서 지워졌습니다.",
    ),
    (
        "another process (host {}, pid {}, started {}) runs on a copy of this data directory ({}, host {}, pid {}): stop one of the two, and \
         give it a new, empty server.data_dir; readings are stored once all the same, but they share a name for everything that instances \
         divide among themselves",
        "다른 프로세스(호스트 {0}, pid {1}, 시작 {2})가 이 데이터 디렉터리({3}, 호스트 {4}, pid {5})의 사본에서 실행 중입니다. 둘 중 하나를 멈추고 비어 있는 \
         새 server.data_dir을 지정하세요. 측정값은 그래도 한 번만 저장되지만, 인스턴스끼리 나누는 모든 일에서 이름이 겹칩니다.",
    ),
    ("no other process runs on a copy of this directory", "이 디렉터리의 사본에서 실행 중인 다른 프로세스가 없습니다."),
    ("it is not watched any more", "더 이상 감시하지 않습니다."),
    ("{}: {}, limit {}", "{0}: {1}, 한도 {2}"),
    ("{}: that is over", "{0}: 해소되었습니다."),
    ("{} is back at {}", "{0}: {1}(으)로 돌아왔습니다."),
];

/// What stands behind a number, the longer first.
const UNITS: [(&str, &str); 5] =
    [(" % in half an hour", "{}%(30분 뒤)"), (" %", "{}%"), (" s", "{}초"), (" min", "{}분"), (" h", "{}시간")];

/// Sentences that hold for figures alone: what stands before must be one.
const OF_FIGURES: [&str; 4] = [
    "{}: {} of {}, full in about {} at the rate of the last minutes; {}",
    "{}: {}, limit {}",
    "{}: that is over",
    "{} is back at {}",
];
/// Sentences within sentences: no deeper than this.
const DEEPEST: u32 = 3;

/// What an alert of belayd's own is called, with the name by which routes and lists know it.
pub(super) fn label(name: &str) -> String {
    found(NAMES, name).map_or_else(|| name.to_owned(), |korean| format!("{korean}({name})"))
}

/// The sentence of an alert of belayd's own. One that is not known, of an older belayd for example, stays as it is behind what the alert is
/// called: better two languages than none.
pub(super) fn sentence(name: &str, text: &str) -> String {
    translated(text, DEEPEST).unwrap_or_else(|| match found(NAMES, name) {
        Some(korean) if !text.is_empty() => format!("{korean}: {text}"),
        Some(korean) => korean.to_owned(),
        None => text.to_owned(),
    })
}

fn found(of: &[(&str, &'static str)], english: &str) -> Option<&'static str> {
    of.iter().find(|(known, _)| *known == english).map(|(_, korean)| *korean)
}

fn translated(text: &str, deepest: u32) -> Option<String> {
    let (english, korean, holes) = SENTENCES.iter().find_map(|(english, korean)| {
        let holes = holes(english, text)?;
        let fits = !OF_FIGURES.contains(english) || holes.first().is_some_and(|what| found(FIGURES, what).is_some());
        fits.then_some((*english, *korean, holes))
    })?;
    Some(filled(korean, |number| holes.get(number).map(|hole| part(english, hole, deepest))))
}

/// The holes of a Korean sentence filled, in one go: what stands in one is not looked through for further ones.
fn filled(korean: &str, part: impl Fn(usize) -> Option<String>) -> String {
    let (mut told, mut rest) = (String::with_capacity(korean.len()), korean);
    while let Some((before, number, after)) = rest.split_once('{').and_then(|(before, rest)| {
        let (number, after) = rest.split_once('}')?;
        Some((before, number.parse::<usize>().ok()?, after))
    }) {
        told.push_str(before);
        told.push_str(&part(number).unwrap_or_default());
        rest = after;
    }
    told + rest
}

/// What stands in a hole: a figure's name, a sentence, several in a row, or what others say, which stays as they say it.
fn part(of: &str, hole: &str, deepest: u32) -> String {
    if let Some(figure) = found(FIGURES, hole) {
        return figure.to_owned();
    }
    let measured = UNITS.iter().find_map(|(unit, korean)| {
        let number = hole.strip_suffix(unit).filter(|number| number.parse::<f64>().is_ok())?;
        Some(korean.replace("{}", number))
    });
    if let Some(measured) = measured {
        return measured;
    }
    if deepest == 0 {
        return hole.to_owned();
    }
    const LOST_END: &str = "; acknowledged readings";
    if hole.starts_with(LOST_END) && !of.starts_with(LOST_END) {
        let ends = hole.split(LOST_END).skip(1).map(|rest| format!("{LOST_END}{rest}"));
        return ends.map(|end| translated(&end, deepest - 1).unwrap_or(end)).collect();
    }
    translated(hole, deepest - 1).unwrap_or_else(|| hole.to_owned())
}

/// What stands in the holes of a pattern; `None` where the text is none of its. What comes last is looked for from the end, since it is what
/// others say that may hold anything.
fn holes<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut literals = pattern.split("{}");
    let mut rest = text.strip_prefix(literals.next()?)?;
    let mut literals: Vec<&str> = literals.collect();
    let Some(last) = literals.pop() else { return rest.is_empty().then(Vec::new) };
    rest = rest.strip_suffix(last)?;
    let mut found = Vec::with_capacity(literals.len() + 1);
    for literal in literals.into_iter().rev() {
        let at = rest.rfind(literal)?;
        found.push(&rest[at + literal.len()..]);
        rest = &rest[..at];
    }
    found.push(rest);
    found.reverse();
    Some(found)
}

#[cfg(test)]
#[path = "korean_tests.rs"]
mod tests;

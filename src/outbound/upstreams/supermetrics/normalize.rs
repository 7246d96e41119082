//! Converts Supermetrics responses to domain types: total and pure. Responses without a status are classified in
//! `classify`.

use super::wire::{ErrorBody, FieldDto, MetaDto, QueryMetaDto as WireQuery, ResultMetaDto};
use crate::domain::details::{
    Details, LicenceQueue, QueryField, QueryMeta, QueryResult, SupermetricsDetails,
};
use crate::domain::id::JobKey;
use crate::domain::job::{Failure, Job, Life, Progress};
use crate::outbound::upstreams::wire::{non_blank, timestamp};

/// The job of a status response. It contains no dates of the run.
pub(super) fn job(key: JobKey, meta: MetaDto) -> Job {
    let mut life = life(meta.status_code.as_deref());
    if let Life::Failed(why) = &mut life {
        *why = failure(&[meta.error.as_ref(), meta.error_info.as_ref()]);
    }
    build(key, life, meta)
}

/// The job of a failed query, from an `error` with one of the query's own codes.
pub(super) fn failed(key: JobKey, meta: MetaDto, error: &ErrorBody) -> Job {
    let failure = failure(&[Some(error), meta.error.as_ref(), meta.error_info.as_ref()]);
    build(key, Life::Failed(failure), meta)
}

/// The failure of these reasons: the first code, and the first message in words; one that only repeats the code is used
/// if there is no other.
fn failure(reasons: &[Option<&ErrorBody>]) -> Failure {
    let reasons = || reasons.iter().flatten();
    let code = reasons().find_map(|reason| non_blank(reason.code.as_ref()));
    let messages = || {
        reasons()
            .flat_map(|reason| [&reason.description, &reason.message])
            .filter_map(|text| non_blank(text.as_ref()))
    };
    let in_words = messages().find(|text| Some(text) != code.as_ref());
    Failure { message: in_words.or_else(|| messages().next()), code }
}

fn build(key: JobKey, life: Life, meta: MetaDto) -> Job {
    let progress =
        meta.progress.and_then(|progress| Progress::new(progress.queries_ready?, progress.queries_total?));
    let queue = meta.workflow.map(|workflow| LicenceQueue {
        tasks_scheduled: workflow.tasks_scheduled,
        tasks_running: workflow.tasks_running,
    });
    Job {
        key,
        life,
        native_state: meta.status_code,
        created_at: None,
        updated_at: None,
        finished_at: None,
        progress,
        details: Details::Supermetrics(Box::new(SupermetricsDetails {
            request_id: meta.request_id,
            schedule_id: meta.schedule_id,
            queue,
            query: meta.query.map(query),
            result: meta.result.as_ref().map(result),
        })),
    }
}

/// The table of `status_code`. A failure has no reason here; an unknown value is not terminal.
pub(super) fn life(status_code: Option<&str>) -> Life {
    match status_code.unwrap_or_default().to_ascii_uppercase().as_str() {
        "SCHEDULED" | "QUEUED" => Life::Queued,
        "RUNNING" => Life::Running,
        "SUCCESS" => Life::Succeeded,
        "FAILURE" | "PROCESS_EXITED" => Life::Failed(Failure::default()),
        "STOPPED" => Life::Canceled,
        _ => Life::Unknown,
    }
}

fn query(wire: WireQuery) -> QueryMeta {
    let field = |field: FieldDto| QueryField {
        id: field.id,
        name: field.name,
        data_type: field.data_type,
        data_column: field.data_column,
    };
    QueryMeta {
        start_date: wire.start_date,
        end_date: wire.end_date,
        accounts: wire.ds_accounts,
        fields: wire.fields.into_iter().map(field).collect(),
    }
}

fn result(wire: &ResultMetaDto) -> QueryResult {
    QueryResult {
        total_rows: wire.total_rows,
        total_columns: wire.total_columns,
        run_seconds: wire.run_seconds,
        data_sampled: wire.data_sampled,
        cache_used: wire.cache_used,
        cache_time: timestamp(wire.cache_time.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::json_text::JsonText;
    use crate::domain::state::JobState;
    use crate::outbound::testing::any_json;
    use crate::outbound::upstreams::supermetrics::wire::AnswerDto;
    use crate::outbound::upstreams::wire::object;
    use proptest::prelude::*;
    use serde_json::json;

    fn key() -> JobKey {
        JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() }
    }

    fn read(text: &str) -> Option<Job> {
        let answer: AnswerDto = object(text.as_bytes())?;
        Some(job(key(), answer.meta.unwrap_or_default()))
    }

    fn details(job: &Job) -> SupermetricsDetails {
        job.details.as_supermetrics().unwrap().clone()
    }

    #[test]
    fn every_native_state_is_mapped_and_kept() {
        let cases = [
            (json!("SCHEDULED"), JobState::Queued),
            (json!("QUEUED"), JobState::Queued),
            (json!("queued"), JobState::Queued),
            (json!("RUNNING"), JobState::Running),
            (json!("SUCCESS"), JobState::Succeeded),
            (json!("Success"), JobState::Succeeded),
            (json!("FAILURE"), JobState::Failed),
            (json!("PROCESS_EXITED"), JobState::Failed),
            (json!("STOPPED"), JobState::Canceled),
            (json!("PAUSED"), JobState::Unknown),
            (json!(""), JobState::Unknown),
            (json!(null), JobState::Unknown),
            (json!(1), JobState::Unknown),
        ];
        for (word, expected) in cases {
            let job = read(&json!({"meta": {"status_code": word}}).to_string()).unwrap();
            assert_eq!(job.state(), expected, "{word}");
            assert_eq!(job.native_state.as_deref(), word.as_str(), "{word}");
            assert!(job.failure().is_none_or(|failure| *failure == Failure::default()));
        }
    }

    #[test]
    fn every_field_is_mapped() {
        let job = read(
            &json!({
                "meta": {
                    "request_id": "r1", "schedule_id": "j", "status_code": "SUCCESS",
                    "progress": {"queries_ready": 3, "queries_total": 2},
                    "workflow": {"tasks_scheduled": 4, "tasks_running": 5},
                    "query": {
                        "start_date": "2024-01-01", "end_date": "2024-01-31", "ds_accounts": [{"id": "a"}, "b"],
                        "fields": [
                            {"field_id": "f", "field_name": "Name", "data_type": "string.text.value", "data_column": 0},
                            "not a field", ["by", "position"]
                        ]
                    },
                    "result": {
                        "total_rows": 12, "total_columns": 1, "run_seconds": 1.5, "data_sampled": false,
                        "cache_used": true, "cache_time": "2024-02-01T00:00:00Z"
                    },
                    "paginate": {"next": "https://elsewhere/?api_key=x"}
                },
                "data": [["Name"], ["x"]]
            })
            .to_string(),
        )
        .unwrap();
        assert_eq!(job.progress, Some(Progress { completed: 3, total: 2 }));
        let expected = SupermetricsDetails {
            request_id: Some("r1".to_owned()),
            schedule_id: Some("j".to_owned()),
            queue: Some(LicenceQueue { tasks_scheduled: Some(4), tasks_running: Some(5) }),
            query: Some(QueryMeta {
                start_date: Some("2024-01-01".to_owned()),
                end_date: Some("2024-01-31".to_owned()),
                accounts: [r#"{"id":"a"}"#, r#""b""#]
                    .iter()
                    .filter_map(|text| JsonText::parse(text))
                    .collect(),
                fields: vec![QueryField {
                    id: Some("f".to_owned()),
                    name: Some("Name".to_owned()),
                    data_type: Some("string.text.value".to_owned()),
                    data_column: Some(0),
                }],
            }),
            result: Some(QueryResult {
                total_rows: Some(12),
                total_columns: Some(1),
                run_seconds: Some(1.5),
                data_sampled: Some(false),
                cache_used: Some(true),
                cache_time: Some("2024-02-01T00:00:00Z".parse().unwrap()),
            }),
        };
        assert_eq!(details(&job), expected);
    }

    #[test]
    fn field_of_the_wrong_type_is_treated_as_missing() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for value in ["[]", "null", "1e999", "true", "-1.5", "99999999999999999999999", deep.as_str()] {
            let text = format!(
                r#"{{"meta":{{"request_id":{value},"schedule_id":{value},"progress":{value},"workflow":{value},
                "query":{value},"result":{value},"status_code":"RUNNING"}},"data":{value}}}"#
            );
            let job = read(&text).unwrap();
            assert_eq!(job.life, Life::Running, "{value}");
            assert_eq!(job.progress, None, "{value}");
            let SupermetricsDetails { request_id, schedule_id, .. } = details(&job);
            // a whole number is read as an id, digit by digit
            let number = value.bytes().all(|digit| digit.is_ascii_digit()).then_some(value);
            assert_eq!((request_id.as_deref(), schedule_id.as_deref()), (number, number), "{value}");
            let expected = SupermetricsDetails { request_id, schedule_id, ..Default::default() };
            assert_eq!(details(&job), expected, "{value}");
            let text = format!(
                r#"{{"meta":{{"progress":{{"queries_ready":{value},"queries_total":1}},"result":{{"total_rows":{value}}}}}}}"#
            );
            let job = read(&text).unwrap();
            assert_eq!(job.progress, None, "{value}");
            assert_eq!(details(&job).result, Some(QueryResult::default()), "{value}");
        }
    }

    #[test]
    fn failure_message_prefers_the_description() {
        let error = |message: &str, description: Option<&str>| ErrorBody {
            code: Some("QUERY_ACCOUNT_UNAVAILABLE".to_owned()),
            message: Some(message.to_owned()),
            description: description.map(str::to_owned),
        };
        for (error, expected) in [
            (error("QUERY_ACCOUNT_UNAVAILABLE", Some("The account is gone")), "The account is gone"),
            (error("a message", None), "a message"),
            (error("a message", Some(" ")), "a message"),
        ] {
            let job = failed(key(), MetaDto::default(), &error);
            let failure = job.failure().unwrap();
            assert_eq!(failure.code.as_deref(), Some("QUERY_ACCOUNT_UNAVAILABLE"));
            assert_eq!(failure.message.as_deref(), Some(expected));
        }
    }

    #[test]
    fn failure_reason_is_read_from_every_known_form() {
        let why = "The account is gone";
        let cases = [
            (json!({"error": {"code": "QUERY_X", "message": why}}), Some("QUERY_X"), Some(why)),
            (json!({"error": {"message": why}}), None, Some(why)),
            (json!({"error": {"code": 42, "description": why}}), Some("42"), Some(why)),
            (
                json!({"error": {"code": "QUERY_X", "message": "QUERY_X", "description": why}}),
                Some("QUERY_X"),
                Some(why),
            ),
            (json!({"error": why}), None, Some(why)),
            (json!({"error": "QUERY_X"}), Some("QUERY_X"), Some("QUERY_X")),
            (json!({"error": [{"code": "QUERY_X", "message": why}]}), Some("QUERY_X"), Some(why)),
            (json!({"error": [why]}), None, Some(why)),
            (
                json!({"error_info": {"error_code": "QUERY_X", "error_message": why}}),
                Some("QUERY_X"),
                Some(why),
            ),
            (json!({"error_info": {"detail": why}}), None, Some(why)),
            (json!({"error": "QUERY_X", "error_info": why}), Some("QUERY_X"), Some(why)),
            (json!({"error": [], "error_info": {"message": why}}), None, Some(why)),
            (json!({"error": {"code": "QUERY_X"}}), Some("QUERY_X"), None),
            (json!({"error": {}, "error_info": ""}), None, None),
            (json!({"error": true}), None, None),
            (json!({}), None, None),
        ];
        for (mut meta, code, message) in cases {
            meta["status_code"] = json!("FAILURE");
            let job = read(&json!({ "meta": meta }).to_string()).unwrap();
            let failure = job.failure().unwrap();
            assert_eq!((failure.code.as_deref(), failure.message.as_deref()), (code, message), "{meta}");
        }
    }

    #[test]
    fn progress_outside_the_int_range_is_dropped() {
        let cases = [
            (json!([1, "2"]), Some((1, 2))),
            (json!([0, 2_147_483_647_i64]), Some((0, 2_147_483_647))),
            (json!([0, 2_147_483_648_i64]), None),
            (json!(["4294967296", 1]), None),
            (json!([-1, 1]), None),
            (json!([null, 1]), None),
        ];
        for (pair, expected) in cases {
            let progress = json!({"queries_ready": pair[0], "queries_total": pair[1]});
            let job =
                read(&json!({"meta": {"status_code": "RUNNING", "progress": progress}}).to_string()).unwrap();
            assert_eq!(job.progress.map(|progress| (progress.completed, progress.total)), expected, "{pair}");
        }
    }

    const NAMES: &[&str] = &[
        "meta",
        "error",
        "code",
        "status_code",
        "progress",
        "queries_ready",
        "query",
        "fields",
        "result",
        "status",
    ];
    const WORDS: &[&str] = &["SUCCESS", "RUNNING", "QUERY_X"];

    proptest! {
        #[test]
        fn any_object_is_read_and_only_success_is_terminal(value in any_json(NAMES, WORDS, 5)) {
            let read = read(&value.to_string());
            prop_assert_eq!(read.is_some(), value.is_object());
            if let Some(job) = read {
                prop_assert_eq!(value["meta"]["status_code"].as_str() == Some("SUCCESS"), job.is_terminal());
            }
        }
    }
}

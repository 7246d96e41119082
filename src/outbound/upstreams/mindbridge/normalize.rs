//! Converts MindBridge responses to domain types: total and pure.

use super::wire::{AsyncResult, UserInfoDto as WireUser};
use crate::domain::details::{Details, EntityRef, MindBridgeDetails, UserInfo};
use crate::domain::id::JobKey;
use crate::domain::job::{Failure, Job, Life};
use crate::outbound::upstreams::reason::failure;
use crate::outbound::upstreams::wire::{non_blank, timestamp};

/// The job of an async result. It contains no progress and no completion time.
pub(super) fn job(key: JobKey, wire: AsyncResult) -> Job {
    let entity = (wire.entity_id.is_some() || wire.entity_type.is_some())
        .then_some(EntityRef { id: wire.entity_id, entity_type: wire.entity_type });
    Job {
        key,
        life: life(wire.status.as_deref(), || {
            failure(non_blank(wire.error.as_ref()), non_blank(wire.error_message.as_ref()))
        }),
        native_state: wire.status,
        created_at: timestamp(wire.creation_date.as_deref()),
        updated_at: timestamp(wire.last_modified_date.as_deref()),
        finished_at: None,
        progress: None,
        details: Details::MindBridge(Box::new(MindBridgeDetails {
            version: wire.version,
            kind: wire.kind,
            entity,
            created_by: wire.created_user_info.and_then(user),
            last_modified_by: wire.last_modified_user_info.and_then(user),
            error: wire.error,
            error_message: wire.error_message,
        })),
    }
}

/// The table of `status`; there is no queued and no cancelled. An unknown value is not terminal.
fn life(status: Option<&str>, failure: impl FnOnce() -> Failure) -> Life {
    match status.unwrap_or_default().to_ascii_uppercase().as_str() {
        "IN_PROGRESS" => Life::Running,
        "COMPLETE" => Life::Succeeded,
        "ERROR" => Life::Failed(failure()),
        _ => Life::Unknown,
    }
}

fn user(wire: WireUser) -> Option<UserInfo> {
    (wire.user_id.is_some() || wire.user_name.is_some())
        .then_some(UserInfo { user_id: wire.user_id, user_name: wire.user_name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::state::JobState;
    use crate::outbound::testing::any_json;
    use crate::outbound::upstreams::wire::object;
    use proptest::prelude::*;
    use serde_json::json;

    fn key() -> JobKey {
        JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() }
    }

    fn read(text: &str) -> Option<Job> {
        object(text.as_bytes()).map(|wire| job(key(), wire))
    }

    fn details(job: &Job) -> MindBridgeDetails {
        job.details.as_mindbridge().unwrap().clone()
    }

    #[test]
    fn every_native_state_is_mapped_and_kept() {
        let cases = [
            (json!("IN_PROGRESS"), JobState::Running),
            (json!("in_progress"), JobState::Running),
            (json!("COMPLETE"), JobState::Succeeded),
            (json!("Complete"), JobState::Succeeded),
            (json!("ERROR"), JobState::Failed),
            (json!("COMPLETED"), JobState::Unknown),
            (json!("QUEUED"), JobState::Unknown),
            (json!(""), JobState::Unknown),
            (json!(null), JobState::Unknown),
            (json!(3), JobState::Unknown),
            (json!({}), JobState::Unknown),
        ];
        for (word, expected) in cases {
            let job = read(&json!({ "status": word }).to_string()).unwrap();
            assert_eq!(job.state(), expected, "{word}");
            assert_eq!(job.native_state.as_deref(), word.as_str(), "{word}");
        }
        assert_eq!(read("{}").unwrap().state(), JobState::Unknown);
    }

    #[test]
    fn every_field_is_mapped() {
        let job = read(
            &json!({
                "id": "j", "version": 9_007_199_254_740_993_i64, "creationDate": "2024-05-01T10:00:00.5Z",
                "lastModifiedDate": "2024-05-01T12:00:00+02:00",
                "createdUserInfo": {"userId": "u1", "userName": "Ada"},
                "lastModifiedUserInfo": {"userId": {}, "userName": "Grace"},
                "type": "A_NEW_KIND", "status": "ERROR", "entityId": "e1", "entityType": "ANALYSIS_RESULT",
                "error": "it broke", "errorMessage": "in the middle", "somethingNew": [1]
            })
            .to_string(),
        )
        .unwrap();
        assert_eq!(job.created_at, Some("2024-05-01T10:00:00.5Z".parse().unwrap()));
        assert_eq!(job.updated_at, Some("2024-05-01T10:00:00Z".parse().unwrap()));
        assert_eq!(job.failure().unwrap().message.as_deref(), Some("it broke: in the middle"));
        let expected = MindBridgeDetails {
            version: Some(9_007_199_254_740_993),
            kind: Some("A_NEW_KIND".to_owned()),
            entity: Some(EntityRef {
                id: Some("e1".to_owned()),
                entity_type: Some("ANALYSIS_RESULT".to_owned()),
            }),
            created_by: Some(UserInfo { user_id: Some("u1".to_owned()), user_name: Some("Ada".to_owned()) }),
            last_modified_by: Some(UserInfo { user_id: None, user_name: Some("Grace".to_owned()) }),
            error: Some("it broke".to_owned()),
            error_message: Some("in the middle".to_owned()),
        };
        assert_eq!(details(&job), expected);
    }

    #[test]
    fn field_of_the_wrong_type_is_treated_as_missing() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for value in ["{}", "[]", "null", "1e999", "true", "3.5", "99999999999999999999999", deep.as_str()] {
            let fields = ["version", "creationDate", "createdUserInfo", "type", "error", "errorMessage"];
            let text: Vec<String> = fields.iter().map(|name| format!("\"{name}\":{value}")).collect();
            let job = read(&format!("{{{},\"status\":\"ERROR\"}}", text.join(","))).unwrap();
            assert_eq!(job.life, Life::Failed(Failure::default()), "{value}");
            assert_eq!(job.created_at, None);
            assert_eq!(details(&job), MindBridgeDetails::default(), "{value}");
        }
    }

    #[test]
    fn failure_is_read_from_either_error_field() {
        let cases = [
            (json!({"error": "INGESTION_FAILED", "errorMessage": "b"}), Some("INGESTION_FAILED"), Some("b")),
            (json!({"error": "a", "errorMessage": "b"}), None, Some("a: b")),
            (json!({"error": " ", "errorMessage": "b"}), None, Some("b")),
            (json!({"error": [], "errorMessage": "b"}), None, Some("b")),
            (json!({"errorMessage": "b"}), None, Some("b")),
            (json!({"error": "A_B"}), Some("A_B"), Some("A_B")),
            (json!({"error": {"reason": "b"}}), None, Some(r#"{"reason":"b"}"#)),
            (json!({"error": [], "errorMessage": {}}), None, None),
            (json!({}), None, None),
        ];
        for (mut wire, code, message) in cases {
            wire["status"] = json!("ERROR");
            let job = read(&wire.to_string()).unwrap();
            let failure = job.failure().unwrap();
            assert_eq!((failure.code.as_deref(), failure.message.as_deref()), (code, message), "{wire}");
        }
        let kept = read(r#"{"status":"IN_PROGRESS","error":"a warning"}"#).unwrap();
        assert_eq!(kept.failure(), None);
        assert_eq!(details(&kept).error.as_deref(), Some("a warning"));
    }

    const NAMES: &[&str] = &[
        "id",
        "version",
        "status",
        "creationDate",
        "createdUserInfo",
        "userId",
        "entityId",
        "error",
        "type",
        "x",
    ];
    const WORDS: &[&str] = &["ERROR", "COMPLETE", "2024-01-01T00:00:00Z"];

    proptest! {
        #[test]
        fn any_object_is_read_and_only_error_and_complete_are_terminal(value in any_json(NAMES, WORDS, 4)) {
            let read = read(&value.to_string());
            prop_assert_eq!(read.is_some(), value.is_object());
            if let Some(job) = read {
                let ends = matches!(value["status"].as_str(), Some("ERROR" | "COMPLETE"));
                prop_assert_eq!(ends, job.is_terminal());
            }
        }
    }
}

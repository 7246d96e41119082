//! Watchers of one job with different grants: none receives the job from what another one was delivered.

use std::sync::Arc;

use super::*;

#[tokio::test(start_paused = true)]
async fn watcher_without_access_gets_no_shared_job() {
    for by_label in [true, false] {
        let all = Principal::local();
        let refs = || vec![reference("mind", "export1")];
        let world = gateway();
        world.follow();
        world.jobs.track(&all, &refs(), &labels(&[("team", "blue")])).await.unwrap();
        let scope = if by_label { of_team("blue") } else { of_kinds(&["EXPORT"]) };
        let mut open = world.jobs.watch(all.clone(), refs(), None).boxed();
        let mut narrow = world.jobs.watch(narrowed("mind", scope), refs(), None).boxed();
        let first = [open.next().await.unwrap(), narrow.next().await.unwrap()].map(|one| one.answer.unwrap());
        assert!(Arc::ptr_eq(&first[0], &first[1]), "both see it at the same time");
        if by_label {
            assert_eq!(world.jobs.untrack(&all, &refs()).await, 1);
            world.change("mind", "export1");
        } else {
            world.put("mind", "export1", Some("REPORT"));
        }
        assert!(open.next().await.unwrap().answer.is_ok());
        let refused = narrow.next().await.unwrap();
        assert_eq!(refused.answer.unwrap_err().code, ProblemCode::NotFound);
        assert!(refused.is_final && narrow.next().await.is_none());
    }
}

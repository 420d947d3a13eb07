//! Who may watch what. Asked when a watcher is created, and again before anything is told after users or roles changed: who
//! lost a right is told nothing that was written later. A token that has run out since does not end a watch.

use std::sync::Arc;

use harmony_types::auth::access::Needs;
use harmony_types::{Author, KeyRange};

use super::super::status::ApiError;
use super::Stream;

impl Stream {
    /// Checks whether the stream's caller may watch these keys now, and says on whose behalf.
    ///
    /// # Errors
    /// Why the caller may not.
    pub(super) async fn judge(&self, keys: &KeyRange) -> Result<Option<Author>, ApiError> {
        let (author, state) = self.api.identify(&self.caller).await?;
        self.api.judge(&state, author.as_ref(), &Needs::read(keys.clone()))?;
        Ok(author)
    }

    /// Cancels whoever lost the right to watch, when users or roles have changed.
    pub(super) fn judge_again(&mut self) {
        let state = self.api.storage.auth();
        if Arc::ptr_eq(&state, &self.judged_by) {
            return;
        }
        let creating = self.creating.iter().map(|(id, watcher)| (id, watcher));
        for (id, watcher) in self.watchers.iter().chain(creating) {
            // The same user under the roles of now.
            let author =
                watcher.author.clone().map(|author| Author { auth_revision: state.revision, ..author });
            if let Err(error) = self.api.judge(&state, author.as_ref(), &Needs::read(watcher.keys.clone())) {
                self.hub.cancel(*id);
                self.is_dry = false;
                self.responses.revoke(*id, error.as_grpc_text());
            }
        }
        self.judged_by = state;
    }
}

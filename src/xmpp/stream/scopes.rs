//! What stream headers declared, once for all streams that declared the same.
//!
//! Why: clients of one kind send the same header, and 100,000 copies of what it declares are 14 MB
//! that no cache holds.

use stanza::scope::StreamScope;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many different ones are remembered: about as many as there are kinds of clients.
const SCOPES_MAX: usize = 16;

/// The scopes of the newest headers, those that came again first.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    newest: VecDeque<Arc<StreamScope>>,
}

impl Scopes {
    /// This scope, as other streams have it if they do.
    pub(crate) fn share(&mut self, scope: StreamScope) -> Arc<StreamScope> {
        if let Some(at) = self.newest.iter().position(|known| **known == scope) {
            self.newest.swap(0, at);
            return self.newest[0].clone();
        }
        let scope = Arc::new(scope);
        if self.newest.len() == SCOPES_MAX {
            self.newest.pop_back();
        }
        self.newest.push_back(scope.clone());
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stanza::ns::Ns;
    use stanza::view::StreamHeader;

    #[test]
    fn streams_that_declare_the_same_share_it_and_others_do_not() {
        let mut scopes = Scopes::default();
        let first = scopes.share(StreamScope::client());
        let other = scopes.share(StreamScope::of(Ns::Server));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(*other, StreamScope::of(Ns::Server));
        assert!(Arc::ptr_eq(&first, &scopes.share(StreamScope::client())));
        assert!(Arc::ptr_eq(
            &other,
            &scopes.share(StreamScope::of(Ns::Server))
        ));
    }

    #[test]
    fn what_comes_again_is_remembered_beside_any_number_of_others() {
        let header = |lang: usize| {
            let header = format!(
                "<stream:stream xmlns='jabber:client' xml:lang='x-{lang}' \
                xmlns:stream='http://etherx.jabber.org/streams'>"
            );
            StreamHeader::parse(header.as_bytes()).unwrap().scope
        };
        let mut scopes = Scopes::default();
        let first = scopes.share(header(0));
        for lang in 1..10 * SCOPES_MAX {
            scopes.share(header(lang));
            assert!(Arc::ptr_eq(&first, &scopes.share(header(0))), "{lang}");
        }
        assert_eq!(scopes.newest.len(), SCOPES_MAX);
    }
}

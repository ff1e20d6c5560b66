//! The plans of the corpus, each of which failed once, pass.

use std::path::Path;

#[test]
fn every_entry_of_the_corpus_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, entry) in sim::corpus::load(&folder).expect("the corpus can be read") {
        let run = sim::sweep::run_plan(&entry.plan);
        assert_eq!(run.violation, None, "{name}: {}", entry.about);
    }
}

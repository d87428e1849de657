//! Any bytes are a pack, or are refused in bounded time and memory; a pack that was accepted can be planned or says why not.
//!
//! The input is the pack itself.

#![no_main]

use flyball_core::scan::{Options, Pack, Scanner, Scratch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let Ok(pack) = Pack::from_toml(&text, "fuzz", None) else {
        return;
    };
    assert!(!pack.rules().is_empty() || !text.contains("[[rule]]"));
    if let Ok(scanner) = Scanner::new(pack, Options::default()) {
        let _ = scanner.hits(data, &mut Scratch::default());
    }
});

//! Any text is parsed and planned, or refused with an error that points into it.
#![no_main]

use frontend::call::{check, outline, targets};
use frontend::{Diagnostic, Pins, Source, Span, parse, parse_trigger, refuse_foreign_syntax};
use libfuzzer_sys::fuzz_target;

#[path = "../benches/world/mod.rs"]
mod world;

fuzz_target!(|text: &str| {
    if let Err(error) = refuse_foreign_syntax(&Source::new("Dockerfile", text), None) {
        is_shown(text, &error);
    }
    parse_trigger(text).map_or_else(|error| is_shown(text, &error), |node| is_in(text, &node.span));
    let source = Source::new("Dockerfile", text);
    check(source.clone(), &world::request(), &Pins::new());
    let dockerfile = match parse(source) {
        Ok(dockerfile) => dockerfile,
        Err(error) => return is_shown(text, &error),
    };
    dockerfile.instructions.iter().for_each(|node| is_in(text, &node.span));
    dockerfile.warnings.iter().for_each(|warning| is_in(text, &warning.span));
    targets(&dockerfile);
    if let Err(error) = outline(&dockerfile, &world::request(), &Pins::new()) {
        is_shown(text, &error);
    }
    match world::planned(&dockerfile, &world::request()) {
        Ok(plan) => plan.warnings.iter().for_each(|warning| is_in(text, &warning.span)),
        Err(error) => is_shown(text, &error),
    }
});

fn is_shown(text: &str, error: &Diagnostic) {
    is_in(text, &error.span);
    assert!(!error.message.is_empty());
    assert!((1..=text.split('\n').count()).contains(&error.line()), "{error}");
}

fn is_in(text: &str, span: &Span) {
    assert!(text.get(span.clone()).is_some(), "{span:?}");
}

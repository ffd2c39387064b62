//! How long the way from text to plan takes, for a Dockerfile of 1,000 lines and 50 stages.

mod world;

use divan::{Bencher, black_box};
use frontend::{Dockerfile, Plan, Source};

const STAGES: usize = 50;
const LINES: usize = 1_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher.bench(|| parsed(black_box(&text)));
}

#[divan::bench]
fn plan(bencher: Bencher<'_, '_>) {
    let dockerfile = parsed(&text());
    bencher.bench(|| planned(black_box(&dockerfile)));
}

#[divan::bench]
fn parse_and_plan(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher.bench(|| planned(&parsed(black_box(&text))));
}

fn parsed(text: &str) -> Dockerfile {
    frontend::parse(Source::new("Dockerfile", text)).expect("it is right")
}

/// Plans twice, as a build does: once to hear which images it needs, once with these.
fn planned(dockerfile: &Dockerfile) -> Plan {
    let plan = world::planned(dockerfile, &world::request()).expect("it is right");
    assert!(plan.graph.vertices().len() > 5 * STAGES, "every stage is needed");
    plan
}

fn text() -> String {
    let text: String = (0..STAGES).map(stage).collect();
    assert_eq!(text.lines().count(), LINES);
    text
}

/// A stage on an image or on the one before, from which it takes files in any case.
fn stage(number: usize) -> String {
    let before = match number.checked_sub(1) {
        Some(before) => format!("stage{before}"),
        None => "busybox:1.36".to_owned(),
    };
    let base = if number.is_multiple_of(3) { "debian:12" } else { &before };
    format!(
        r#"FROM {base} AS stage{number}
ARG VERSION=1.{number}
ARG TARGETARCH
ENV APP_VERSION=${{VERSION:-none}} \
    APP_HOME=/srv/app{number}
LABEL org.example.version="${{APP_VERSION}}" org.example.arch="${{TARGETARCH}}"
WORKDIR ${{APP_HOME}}
# Dependencies change seldom.
COPY --chown=1000:1000 go.mod go.sum ./
RUN --mount=type=cache,target=/root/.cache,id=app-$TARGETARCH \
    --mount=type=bind,from={before},source=/etc,target=/in \
    make dependencies
RUN make VERSION="${{VERSION}}" && make check
COPY --link --from={before} /srv/out/lib{number} ./lib/
COPY --chmod=644 <<app.conf motd.txt /etc/app/
version = $APP_VERSION
app.conf
RUN <<EOF
make install DESTDIR=/srv/out/lib{number}
EOF
"#
    )
}

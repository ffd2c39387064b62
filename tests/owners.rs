//! Owners where there is one id: a user without subordinate ids builds what root builds.
//!
//! Each test builds the same Dockerfile as root and as such a user and compares the images: first
//! what can be read in a message, then the digests.

use std::fmt::Write as _;
use std::process::Command;

use test_support::{Base, Caller, Image, Kind, Session, compile};

/// Demands that both callers have the same image of a session.
fn is_the_same_for_both(session: impl Fn() -> Session) -> Image {
    let image = |caller| {
        let session = session().env("SOURCE_DATE_EPOCH", "1700000000").run_by(caller);
        session.build(&["-t", "x"]).succeeds();
        session.image("x")
    };
    let (roots, users) = (image(Caller::Root), image(Caller::WithOneId));
    assert_eq!(listing(&users), listing(&roots), "the user's is on the left");
    assert_eq!(users.digest, roots.digest);
    users
}

/// Path, kind, mode, owner and attributes of all that the layers above the base have, and what is in
/// the texts that commands have left in `/said`.
fn listing(image: &Image) -> String {
    let mut text = String::new();
    for (path, file) in image.layers.iter().skip(1).flat_map(|layer| &layer.entries) {
        let kind = match &file.kind {
            Kind::Regular(content) if path.starts_with("/said/") => {
                format!("\n{}", String::from_utf8_lossy(content))
            }
            Kind::Regular(_) => String::new(),
            other => format!("{other:?}"),
        };
        writeln!(text, "{path} {} {:?} {kind}", file.access(), file.xattrs).unwrap();
    }
    text
}

fn busybox(instructions: &str) -> Session {
    Session::new().dockerfile(&format!("FROM busybox\nRUN mkdir /said\n{instructions}"))
}

fn debian(instructions: &str) -> Session {
    let session = Session::new().base(Base::Debian);
    session.dockerfile(&format!("FROM debian\nRUN mkdir -m 777 /said\n{instructions}"))
}

/// A session with `fixtures/owners.c` as `/owners`.
fn program(instructions: &str) -> Session {
    let session = busybox(&format!("COPY owners /\n{instructions}"));
    compile("owners.c", &session.context().join("owners"), &["-pthread"]);
    session
}

#[test]
fn files_links_pipes_and_directories_are_given_away() {
    let image = is_the_same_for_both(|| {
        busybox(
            "RUN echo > /f && ln -s to /link && mkdir -p /d/e && mkfifo /pipe\n\
             RUN chown 5:6 /f && chown -h 7:8 /link && chgrp 9 /d && chown -R 10:11 /d/e && \
                 chown 12:13 /pipe && chown :14 /f\n\
             RUN stat -c '%n %u:%g %a' /f /link /d /d/e /pipe > /said/owners\n",
        )
    });
    let access = |path: &str| image.rootfs().file(path).access();
    assert_eq!(access("/f"), "644 5:14");
    assert_eq!([access("/link"), access("/pipe")], ["777 7:8", "644 12:13"]);
    assert_eq!([access("/d"), access("/d/e")], ["755 0:9", "755 10:11"]);
    assert!(image.text("/said/owners").contains("/link 7:8"));
}

#[test]
fn what_is_moved_copied_or_linked_takes_its_owner_along() {
    is_the_same_for_both(|| {
        busybox(
            "RUN mkdir /d && echo a > /f && ln -s to /link && mkfifo /pipe && chown 5:6 /f && \
                 chown -h 7:8 /link && chown 9:10 /pipe && chown 11:12 /d\n\
             RUN mv /f /link /pipe /d/ && cp -a /d /archived && cp -pr /d/f /kept && \
                 cp -r /d/f /plain && tar -c -f - d | tar -x -f - -C /tmp && ln /d/f /hard && \
                 chown 13:14 /hard && sed -i s/a/b/ /archived/f && mv /archived /again\n\
             RUN mv /d/link /d/other && mv /tmp/d/pipe / && rm /hard && cp -a /again /d /tmp/\n\
             RUN find / -xdev -user 5 -o -xdev -group 14 | sort > /said/found\n",
        )
    });
}

#[test]
fn giving_a_file_away_takes_its_set_user_id_bit() {
    is_the_same_for_both(|| {
        busybox(
            "RUN cd /said && touch both user group && mkdir dir && \
                 chmod 6755 both && chmod 4644 user && chmod 2745 group && chmod 7777 dir && \
                 chown 5:6 both user group dir && stat -c '%n %a' * > modes && chmod u+s user\n\
             RUN chown 5:6 /said/user && chown 0:0 /said/dir\n",
        )
    });
}

#[test]
fn files_that_are_written_anew_keep_the_owner_that_they_had() {
    let image = is_the_same_for_both(|| {
        debian(
            "RUN useradd -m bob && usermod -aG mail bob && groupadd more && gpasswd -a bob more && \
                 chage -d 2020-01-01 bob && passwd -l bob && useradd -r other && userdel other\n\
             RUN install -o bob -g more -m 4750 /bin/true /installed && \
                 stat -c '%n %a %U %G' /etc/shadow* /etc/gshadow* /home/bob/.* > /said/owners\n",
        )
    });
    assert_eq!(image.rootfs().file("/installed").access(), "4750 1000:1001");
    assert_eq!(image.rootfs().file("/etc/shadow").access(), "640 0:42");
}

#[test]
fn a_command_that_becomes_somebody_else_is_and_makes_that_persons_files() {
    let image = is_the_same_for_both(|| {
        debian(
            "RUN useradd -m bob && usermod -aG mail,www-data bob\n\
             RUN su bob -c 'id; touch ~/f; mkdir -m 700 ~/d; ln -s a ~/l; mkfifo ~/p; cp -a ~/d ~/e; \
                 umask 077; echo > ~/masked; chgrp mail ~/f; chgrp shadow ~/f; chown root ~/f; \
                 touch /no; echo > /home/bob/masked' > /said/su 2>&1 || true\n\
             RUN setpriv --reuid 33 --regid 33 --init-groups sh -c 'id; touch /tmp/x; \
                 setpriv --reuid 0 id; (sleep 0.1; touch /tmp/y) & wait; nohup sh -c \"touch /tmp/z\"' \
                 > /said/setpriv 2>&1 || true\n\
             RUN perl -e '$>=33; open F,\">/tmp/e\"; $>=0; open F,\">/tmp/g\"; print \"$< $>\\n\"; \
                 $<=$>=34; print \"$< $>\\n\"; $>=0; print \"$< $> $!\\n\"' > /said/perl\n",
        )
    });
    assert_eq!(image.rootfs().file("/home/bob/f").access(), "644 1000:8");
    assert!(image.text("/said/su").contains("uid=1000(bob)"), "{}", image.text("/said/su"));
}

#[test]
fn a_user_is_that_user_and_owns_what_it_makes() {
    let image = is_the_same_for_both(|| {
        debian(
            "RUN useradd -m bob && cp /usr/bin/id /usr/bin/user && cp /usr/bin/id /usr/bin/group && \
                 chmod 4755 /usr/bin/user && chgrp mail /usr/bin/group && chmod 2755 /usr/bin/group\n\
             USER bob\n\
             RUN (id; whoami; groups; echo $HOME; grep ^Cap /proc/self/status; user; group) > /said/bob\n\
             RUN touch ~/mine && mkdir -p ~/a/b && chmod 4755 ~/mine && echo out > /dev/stdout\n\
             RUN if touch /usr/mine; then exit 1; fi; if chown root ~/mine; then exit 1; fi\n\
             USER www-data:mail\n\
             WORKDIR /var/new/dir\n\
             RUN (id; pwd; stat -c '%u:%g' . ..; touch f) > /said/www-data\n\
             USER 12345\n\
             RUN (id; echo $HOME; umask) > /said/nameless\n\
             USER root\n\
             RUN id > /said/root; touch /root/f\n",
        )
    });
    assert_eq!(image.rootfs().file("/home/bob/mine").access(), "4755 1000:1000");
    assert_eq!(image.rootfs().file("/var/new/dir").access(), "755 33:8");
    let bob = image.text("/said/bob");
    assert!(bob.contains("uid=1000(bob)") && bob.contains("euid=0(root)"), "{bob}");
    assert!(bob.contains("CapEff:\t0000000000000000"), "{bob}");
}

#[test]
fn what_is_made_in_a_directory_of_a_group_is_the_groups() {
    let image = is_the_same_for_both(|| {
        busybox(
            "RUN mkdir /g /g/old && chgrp 50 /g && chmod 2775 /g && cd /g && echo > f && mkdir d && \
                 ln -s x l && mkfifo p && mv old older && cp -p /etc/passwd kept && cp /etc/passwd . \
                 && mkdir d/d && echo > d/d/f && touch /tmp/f && mv /tmp/f moved\n\
             RUN chmod 2777 /g/d && su -s /bin/sh www-data -c 'touch /g/d/w; mkdir /g/d/x; echo > /g/d/x/f'\n\
             RUN cd /g && echo > later && stat -c '%n %a %u:%g' * d/* > /said/owners\n",
        )
    });
    assert_eq!(image.rootfs().file("/g/d/x/f").access(), "644 33:50");
}

#[test]
fn every_way_to_give_a_file_away_works_as_for_root() {
    is_the_same_for_both(|| {
        program(
            "RUN mkdir /ways && /owners ways /ways > /said/root 2>&1; ls -lanR /ways | grep -v total >> /said/root\n\
             RUN mkdir -m 777 /users && touch /said/user && chmod 666 /said/user\n\
             USER 1000:1001\n\
             RUN /owners ways /users > /said/user 2>&1; ls -lanR /users | grep -v total >> /said/user\n",
        )
    });
}

/// Issue 10, 1, L2: memory that isn't there, pipes, circles, other processes, nothing at all.
#[test]
fn what_is_wrong_is_refused_as_by_the_kernel() {
    is_the_same_for_both(|| {
        program(
            "RUN mkdir /wrong && /owners wrong /wrong > /said/root 2>&1\n\
             RUN mkdir -m 777 /users && touch /said/user && chmod 666 /said/user\n\
             USER 1000:1001\n\
             RUN /owners wrong /users > /said/user 2>&1\n",
        )
    });
}

/// Issue 10, 1, L2: links of the kernel's own, such as `/dev/stdout`, slashes, bounds of `openat2`.
#[test]
fn every_form_of_a_path_leads_to_the_same_file_as_for_root() {
    let image = is_the_same_for_both(|| {
        program(
            "RUN mkdir /names && /owners names /names > /said/root 2>&1\n\
             RUN mkdir -m 777 /users && touch /said/user && chmod 666 /said/user\n\
             USER 1000:1001\n\
             RUN /owners names /users > /said/user 2>&1\n",
        )
    });
    assert!(image.text("/said/user").lines().count() > 3000);
}

/// Issue 10, 1, L2: what nginx's image does with its logs, and its user in them.
#[test]
fn logs_that_are_links_to_the_output_are_given_away_and_written_to() {
    let build = |caller| {
        let session = busybox(
            "RUN mkdir /logs && ln -sf /dev/stdout /logs/access && ln -sf /dev/stderr /logs/error && \
                 ln -s /proc/self/fd/1 /logs/first && chown 5:6 /logs/* && chown -h 7:8 /logs/error\n\
             USER 5:6\n\
             RUN echo one > /logs/access && echo two >> /logs/error && echo three | tee /logs/first\n",
        );
        let session = session.env("SOURCE_DATE_EPOCH", "1700000000").run_by(caller);
        let outcome = session.build_with_events(&["-t", "x"]).succeeds();
        (outcome.steps().step("RUN echo").log.clone(), listing(&session.image("x")))
    };
    let (log, users) = build(Caller::WithOneId);
    assert!(["one", "two", "three"].iter().all(|word| log.contains(word)), "{log}");
    assert_eq!(users, build(Caller::Root).1);
}

/// Issue 10, 1, L2: set-user-ID programs that can't be executed, scripts, `no_new_privs`, `nosuid`.
#[test]
fn a_program_makes_another_user_of_its_process_only_if_it_is_executed() {
    let image = is_the_same_for_both(|| {
        program(
            "RUN mkdir /programs && cd /programs && for p in plain user group both other \
                 group-without-execution not-executable; do cp /owners $p; done && \
                 printf '#!/owners ids\\n' > script && printf '#!/programs/user\\n' > script-of-user && \
                 printf '#!/absent\\n' > script-of-absent && echo garbage > broken && touch empty && \
                 mkdir directory && ln -s user link && chgrp 50 group both group-without-execution && \
                 chown 40 other && chmod 755 script-of-user && chmod 2755 group && \
                 chmod 2745 group-without-execution && chmod 6755 both && \
                 chmod 4755 user other script script-of-absent broken empty directory && \
                 chmod 4644 not-executable\n\
             RUN cp /owners /dev/shm/user; chmod 4755 /dev/shm/user; /owners become / > /said/become 2>&1\n",
        )
    });
    let said = image.text("/said/become");
    assert!(said.contains("/programs/user: 1000 0 0, 1000 1000 1000\n"), "{said}");
}

/// Issue 10, 1, L2.
#[test]
fn rights_that_root_keeps_end_with_the_program() {
    let image = is_the_same_for_both(|| program("RUN /owners rights / > /said/rights 2>&1\n"));
    let said = image.text("/said/rights");
    assert!(said.contains("rights: ok") && said.contains("later program: Operation not"), "{said}");
}

/// Issue 10, 1, L2: kernels before 5.19 end the wait for an answer at each signal.
#[test]
fn what_signals_interrupt_is_done_once() {
    let image = is_the_same_for_both(|| {
        program("RUN mkdir -m 777 /s && /owners signals /s > /said/signals 2>&1\n")
    });
    assert_eq!(image.text("/said/signals"), "two users: ok\nsignals: ok\n");
}

/// Issue 10, 1, L2: in real time there is no timer slack, in which it is noted who a process is.
#[test]
fn a_command_of_a_caller_in_real_time_becomes_another_user() {
    let session = busybox("RUN su -s /bin/sh www-data -c 'id -u; touch /tmp/f' > /said/id\n");
    let session = session.run_by(Caller::WithOneId);
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let changed = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).status();
    assert!(changed.expect("chrt runs").success(), "no real time here");
    session.build(&["-t", "x"]).succeeds();
    let image = session.image("x");
    assert_eq!(image.text("/said/id"), "33\n");
    assert_eq!(image.rootfs().file("/tmp/f").access(), "644 33:33");
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "there are no programs of 32 bits")]
fn programs_of_32_bits_give_files_away_too() {
    let flags = ["-m32", "-nostdlib", "-fno-pic", "-no-pie", "-fno-stack-protector"];
    let image = is_the_same_for_both(|| {
        let session = busybox(
            "COPY owners32 /\n\
             RUN mkdir -m 777 /w && cd /w && touch f && ln -s x l && /owners32 f l > /said/numbers\n",
        );
        compile("owners32.c", &session.context().join("owners32"), &flags);
        session
    });
    assert_eq!(image.rootfs().file("/w/l").access(), "777 70000:80000");
    assert_eq!(image.rootfs().file("/w/opened-by-32").access(), "640 8:9");
}

#[test]
fn threads_forks_and_sudden_ends_lose_no_owner() {
    let image = is_the_same_for_both(|| program("RUN /owners storm /said > /said/storm\n"));
    assert_eq!(image.text("/said/storm"), "threads: ok\nkilled: ok\nforks: ok\nflicker: ok\n");
    assert_eq!(image.rootfs().file("/said/thread-7").access(), "644 56:7");
}

/// Neither reaches the process that answers: what it has open is nobody else's.
#[test]
fn the_process_that_answers_cannot_be_given_away() {
    let session = busybox(
        "RUN for f in /proc/1/fd/* /proc/1/fd/1 /proc/1/fd/3 /proc/1/cwd/f /proc/1/root/said; do \
                 ln -sf $f /tmp/link; chown 5:5 $f && echo $f; chown 5:5 /tmp/link && echo $f; done; \
             ls -l /proc/1/fd 2> /dev/null; stat -c %u:%g /said\n",
    );
    let outcome = session.run_by(Caller::WithOneId).build_with_events(&["-t", "x"]).succeeds();
    let log = outcome.steps().step("RUN for").log.clone();
    assert!(log.ends_with("0:0\n") && !log.contains("\n/proc/1"), "{log}");
}

#[test]
fn a_device_of_the_host_seems_to_be_given_away() {
    let session =
        busybox("RUN chown 5:6 /dev/null && chmod 666 /dev/null; chown -h 0:0 /dev/null\n");
    session.run_by(Caller::WithOneId).build(&[]).succeeds();
}

#[test]
fn mounts_are_given_away_for_as_long_as_they_last() {
    let session = || {
        let session = busybox(
            "RUN --mount=type=cache,target=/cache,uid=5,gid=6 cd /cache && touch f && chown 7:8 f && \
                 stat -c %u:%g . f > /said/cache\n\
             RUN --mount=type=cache,target=/cache,uid=5,gid=6 cd /cache && stat -c %u:%g . f > /said/later\n\
             RUN --mount=type=tmpfs,target=/t cd /t && touch f && chown 7:8 f . && stat -c %u:%g . f > /said/tmpfs\n\
             RUN --mount=type=bind,source=f,target=/bound,rw chown 9:10 /bound; stat -c %u:%g /bound > /said/bind\n\
             RUN --mount=type=secret,id=s chown 7:8 /run/secrets/s 2> /said/secret; true\n\
             RUN cd /dev/shm && touch f && chown 7:8 f && stat -c %u:%g f > /said/shm\n\
             RUN chown 33 /dev/stdout && stat -L -c %u:%g /dev/stdout /proc/self/fd/1 > /said/pipe; \
                 (chown 34:35 /dev/stdout && stat -L -c %u:%g /dev/stdout >&2) | cat 2>> /said/pipe\n",
        );
        session.file("f", "content").env("SECRET", "secret")
    };
    let image = |caller| {
        let session = session().run_by(caller);
        session.build(&["-t", "x", "--secret", "id=s,env=SECRET"]).succeeds();
        listing(&session.image("x"))
    };
    assert_eq!(image(Caller::WithOneId), image(Caller::Root));
}

/// Issue 10, 1: what apt, dpkg and the scripts of packages do with owners.
#[test]
#[ignore = "takes a minute, and Debian's mirror"]
fn packages_of_servers_install_as_for_root() {
    let image = |caller| {
        let session = debian("RUN apt-get update && apt-get install -y openssh-server cron\n");
        let session = session.run_by(caller);
        session.build(&["-t", "x"]).succeeds();
        session.image("x")
    };
    let (roots, users) = (image(Caller::Root), image(Caller::WithOneId));
    assert_eq!(listing(&users), listing(&roots), "the user's is on the left");
    assert_eq!(users.rootfs().file("/usr/bin/crontab").access(), "2755 0:101");
}

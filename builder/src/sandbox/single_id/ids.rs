//! The ids that a process believes it has, and the kernel's rules for changing them.

use std::rc::Rc;

use rustix::io::Errno;

use super::caller::Layout;

/// An argument that leaves an id as it is.
pub(super) const UNCHANGED: u32 = u32::MAX;

/// Whom a process takes itself for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Ids {
    pub(super) user: Quad,
    pub(super) group: Quad,
    /// Sorted, as the kernel tells them.
    groups: Rc<[u32]>,
    /// Whether root that becomes a user is to keep its rights, until it executes a program.
    keeps_rights: bool,
    /// The same, also for later programs: `SECBIT_NO_SETUID_FIXUP`.
    is_never_fixed: bool,
    /// Whether it has kept them.
    has_kept_rights: bool,
}

impl Ids {
    /// Those of a process that was started by this user.
    pub(in crate::sandbox) fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        let ids = Self {
            user: Quad::all(uid),
            group: Quad::all(gid),
            groups: Rc::new([]),
            keeps_rights: false,
            is_never_fixed: false,
            has_kept_rights: false,
        };
        ids.with_groups(groups)
    }

    /// The same with other supplementary groups.
    pub(super) fn with_groups(mut self, mut groups: Vec<u32>) -> Self {
        groups.sort_unstable();
        self.groups = groups.into();
        self
    }

    /// The supplementary groups.
    pub(super) fn groups(&self) -> &[u32] {
        &self.groups
    }

    /// The same after `PR_SET_KEEPCAPS`.
    pub(super) fn keeping_rights(&self, keeps_rights: bool) -> Self {
        Self { keeps_rights, ..self.clone() }
    }

    /// The same after `PR_SET_SECUREBITS`.
    pub(super) fn with_secure_bits(&self, bits: u32) -> Self {
        let has = |bit: i32| bits & bit as u32 != 0;
        let keeps_rights = has(libc::SECBIT_KEEP_CAPS);
        Self { keeps_rights, is_never_fixed: has(libc::SECBIT_NO_SETUID_FIXUP), ..self.clone() }
    }

    /// The same as another user.
    pub(super) fn with_user(&self, user: Quad) -> Self {
        let was_root = self.user.is_in_part(0) || self.has_kept_rights;
        let keeps_rights = self.keeps_rights || self.is_never_fixed;
        let has_kept_rights = was_root && keeps_rights && !user.is_in_part(0);
        Self { user, has_kept_rights, ..self.clone() }
    }

    /// The same in another group.
    pub(super) fn with_group(&self, group: Quad) -> Self {
        Self { group, ..self.clone() }
    }

    /// Whether it may do what root may. There is no record of single capabilities.
    pub(super) fn is_privileged(&self) -> bool {
        self.user.effective == 0 || self.has_kept_rights
    }

    /// Whether what it makes is root's.
    pub(super) fn makes_what_is_roots(&self) -> bool {
        (self.user.file, self.group.file) == (0, 0)
    }

    /// Whether nothing but root is among them, and no right is kept.
    pub(super) fn is_plain_root(&self) -> bool {
        (self.user, self.group) == (Quad::all(0), Quad::all(0))
            && !self.keeps_rights
            && !self.has_kept_rights
    }

    /// Whether `gid` is a group of its own.
    pub(super) fn has_group(&self, gid: u32) -> bool {
        self.group.file == gid || self.groups.contains(&gid)
    }

    /// Those after the execution of a program, which may be someone's for all that start it.
    pub(super) fn after_execution(&self, user: Option<u32>, group: Option<u32>) -> Self {
        Self {
            user: self.user.executed_as(user),
            group: self.group.executed_as(group),
            keeps_rights: false,
            has_kept_rights: false,
            ..self.clone()
        }
    }
}

/// The four ids of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quad {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    /// The one that counts for files.
    pub(super) file: u32,
}

/// A call that changes ids of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `setuid`, `setgid`
    One,
    /// `setreuid`, `setregid`
    RealAndEffective,
    /// `setresuid`, `setresgid`
    RealEffectiveAndSaved,
    /// `setfsuid`, `setfsgid`
    File,
}

impl Quad {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, file: id }
    }

    fn is_in_part(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    fn executed_as(self, id: Option<u32>) -> Self {
        let effective = id.unwrap_or(self.effective);
        Self { real: self.real, effective, saved: effective, file: effective }
    }

    /// What the call leaves, or why the kernel would refuse it.
    pub(super) fn change(
        self,
        how: Change,
        arguments: [u32; 3],
        privileged: bool,
    ) -> Result<Self, Errno> {
        match how {
            Change::One => self.one(arguments[0], privileged),
            Change::RealAndEffective => {
                self.real_and_effective(arguments[0], arguments[1], privileged)
            }
            Change::RealEffectiveAndSaved => self.three(arguments, privileged),
            Change::File => Ok(self.file_alone(arguments[0], privileged)),
        }
    }

    fn one(self, id: u32, privileged: bool) -> Result<Self, Errno> {
        match id {
            UNCHANGED => Err(Errno::INVAL),
            id if privileged => Ok(Self::all(id)),
            id if [self.real, self.saved].contains(&id) => {
                Ok(Self { effective: id, file: id, ..self })
            }
            _ => Err(Errno::PERM),
        }
    }

    fn real_and_effective(
        self,
        real: u32,
        effective: u32,
        privileged: bool,
    ) -> Result<Self, Errno> {
        let may_be_real = [UNCHANGED, self.real, self.effective].contains(&real);
        let may_be_effective =
            [UNCHANGED, self.real, self.effective, self.saved].contains(&effective);
        if !(privileged || may_be_real && may_be_effective) {
            return Err(Errno::PERM);
        }
        let new_effective = or(effective, self.effective);
        let is_saved = real != UNCHANGED || effective != UNCHANGED && new_effective != self.real;
        Ok(Self {
            real: or(real, self.real),
            effective: new_effective,
            saved: if is_saved { new_effective } else { self.saved },
            file: new_effective,
        })
    }

    fn three(self, ids: [u32; 3], privileged: bool) -> Result<Self, Errno> {
        let own = [UNCHANGED, self.real, self.effective, self.saved];
        if !privileged && !ids.iter().all(|id| own.contains(id)) {
            return Err(Errno::PERM);
        }
        let effective = or(ids[1], self.effective);
        Ok(Self {
            real: or(ids[0], self.real),
            effective,
            saved: or(ids[2], self.saved),
            file: effective,
        })
    }

    fn file_alone(self, id: u32, privileged: bool) -> Self {
        let own = [self.real, self.effective, self.saved, self.file];
        if id != UNCHANGED && (privileged || own.contains(&id)) {
            return Self { file: id, ..self };
        }
        self
    }
}

fn or(id: u32, before: u32) -> u32 {
    if id == UNCHANGED { before } else { id }
}

/// All that processes of one container have taken themselves for. The first is its user's.
///
/// Which of them a process has is noted in the process itself, in a number that the kernel passes
/// on from parents to children and from program to program, and that this PID 1 may set: its timer
/// slack. Nothing need be known of forks, and a number of a process that is used again means
/// nothing. Some billionths of a second more or less are felt nowhere. A command can't set its own
/// slack, nor run in real time, where the kernel has none (see [`calls`](super::calls)).
///
/// A number may also stand for an attempt to execute a program that makes another user of its
/// process, see [`programs`](super::programs).
#[derive(Debug)]
pub(super) struct Known {
    ids: Vec<Ids>,
    /// How many supplementary groups are in memory for them.
    groups: usize,
    /// The latest ones; the place of the oldest is taken by the next.
    attempts: Vec<Attempt>,
    next_attempt: usize,
}

/// An attempt to execute a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    layout: Layout,
    before: u64,
    after: u64,
}

impl Attempt {
    /// The slack of a process with this attempt whose program is laid out so.
    pub(super) fn slack_with(self, layout: Layout) -> u64 {
        if layout == self.layout { self.before } else { self.after }
    }
}

/// What a timer slack stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Ids(&'a Ids),
    Attempt(Attempt),
}

/// The kernel's usual slack, in nanoseconds; the number of the ids is added to it.
pub(in crate::sandbox) const USUAL_SLACK: u64 = 50_000;

impl Known {
    /// More than any build needs: a slack that grows without end would be felt some day.
    const MOST: usize = 10_000;

    /// Four megabytes of them.
    const MOST_GROUPS: usize = 1 << 20;

    /// How many attempts may be undecided at once.
    const MOST_ATTEMPTS: usize = 1_000;

    /// The slack of the first attempt.
    const ATTEMPTS: u64 = USUAL_SLACK + Self::MOST as u64;

    pub(super) fn new(first: Ids) -> Self {
        Self { groups: first.groups.len(), ids: vec![first], attempts: vec![], next_attempt: 0 }
    }

    /// Whether all processes have the same.
    pub(super) fn is_one(&self) -> bool {
        self.ids.len() == 1
    }

    pub(super) fn first(&self) -> &Ids {
        &self.ids[0]
    }

    /// Whether a process may have an attempt that is not decided.
    pub(super) fn has_attempts(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// What a process with this slack has.
    pub(super) fn find(&self, slack: u64) -> Found<'_> {
        let number = |first: u64| usize::try_from(slack.checked_sub(first)?).ok();
        let attempt = number(Self::ATTEMPTS).and_then(|number| self.attempts.get(number));
        let ids = || number(USUAL_SLACK).and_then(|number| self.ids.get(number));
        match attempt {
            Some(attempt) => Found::Attempt(*attempt),
            None => Found::Ids(ids().unwrap_or(self.first())),
        }
    }

    /// The ids of a process with this slack.
    pub(super) fn of_slack(&self, slack: u64) -> &Ids {
        match self.find(slack) {
            Found::Ids(ids) => ids,
            Found::Attempt(Attempt { before, .. }) => match self.find(before) {
                Found::Ids(ids) => ids,
                Found::Attempt(_) => self.first(),
            },
        }
    }

    /// The slack for a process that has them from now on.
    pub(super) fn slack_for(&mut self, ids: Ids) -> Result<u64, Errno> {
        let number = match self.ids.iter().position(|known| *known == ids) {
            Some(number) => number,
            None => self.add(ids)?,
        };
        Ok(USUAL_SLACK + number as u64)
    }

    fn add(&mut self, mut ids: Ids) -> Result<usize, Errno> {
        if self.ids.len() >= Self::MOST {
            return Err(Errno::AGAIN);
        }
        match self.ids.iter().find(|known| known.groups == ids.groups) {
            Some(known) => ids.groups = known.groups.clone(),
            None if self.groups + ids.groups.len() > Self::MOST_GROUPS => return Err(Errno::NOMEM),
            None => self.groups += ids.groups.len(),
        }
        self.ids.push(ids);
        Ok(self.ids.len() - 1)
    }

    /// The slack for a process with the slack `before` that will have the ids `after` if its program,
    /// laid out so, is followed by another one.
    pub(super) fn slack_for_attempt(
        &mut self,
        before: u64,
        after: Ids,
        layout: Layout,
    ) -> Result<u64, Errno> {
        let attempt = Attempt { layout, before, after: self.slack_for(after)? };
        let number = self.next_attempt;
        self.next_attempt = (number + 1) % Self::MOST_ATTEMPTS;
        match self.attempts.get_mut(number) {
            Some(oldest) => *oldest = attempt,
            None => self.attempts.push(attempt),
        }
        Ok(Self::ATTEMPTS + number as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Quad = Quad { real: 5, effective: 6, saved: 7, file: 6 };

    #[test]
    fn root_becomes_anybody_and_then_cannot_return() {
        let user = Quad::all(0).change(Change::One, [33, 0, 0], true).unwrap();
        assert_eq!(user, Quad::all(33));
        assert_eq!(user.change(Change::One, [0, 0, 0], false), Err(Errno::PERM));
        let all = [UNCHANGED, 0, UNCHANGED];
        assert_eq!(user.change(Change::RealEffectiveAndSaved, all, false), Err(Errno::PERM));
    }

    #[test]
    fn a_saved_id_is_a_way_back() {
        let away = Quad::all(0);
        let away = away.change(Change::RealEffectiveAndSaved, [UNCHANGED, 33, UNCHANGED], true);
        let away = away.unwrap();
        assert_eq!((away.effective, away.file, away.saved), (33, 33, 0));
        assert_eq!(away.change(Change::One, [0, 0, 0], false).unwrap(), Quad::all(0));
    }

    #[test]
    fn only_ones_own_ids_can_be_exchanged() {
        let swapped = USER.change(Change::RealAndEffective, [6, 5, 0], false).unwrap();
        assert_eq!(swapped, Quad { real: 6, effective: 5, saved: 5, file: 5 });
        assert_eq!(USER.change(Change::RealAndEffective, [7, 5, 0], false), Err(Errno::PERM));
        let effective = USER.change(Change::RealAndEffective, [UNCHANGED, 5, 0], false).unwrap();
        assert_eq!(effective, Quad { real: 5, effective: 5, saved: 7, file: 5 });
        let nothing = [UNCHANGED; 3];
        assert_eq!(USER.change(Change::RealAndEffective, nothing, false), Ok(USER));
    }

    #[test]
    fn the_id_for_files_is_set_or_left() {
        let set = |id, privileged| USER.change(Change::File, [id, 0, 0], privileged).unwrap().file;
        assert_eq!(
            [set(7, false), set(8, false), set(8, true), set(UNCHANGED, true)],
            [7, 6, 8, 6]
        );
    }

    #[test]
    fn a_program_that_is_roots_for_all_makes_its_starter_root() {
        let ids = Ids::new(33, 33, vec![]).after_execution(Some(0), None);
        assert_eq!((ids.user.real, ids.user.effective, ids.user.saved), (33, 0, 0));
        assert!(ids.is_privileged());
        let away = Quad { real: 0, effective: 33, saved: 0, file: 33 };
        assert_eq!(away.executed_as(None).saved, 33, "the way back ends with the program");
    }

    #[test]
    fn rights_are_kept_on_demand_until_a_program_is_executed() {
        let root = Ids::new(0, 0, vec![]);
        assert!(!root.with_user(Quad::all(33)).is_privileged());
        let user = root.keeping_rights(true).with_user(Quad::all(33));
        assert!(user.is_privileged());
        assert!(user.with_group(Quad::all(33)).with_groups(vec![]).is_privileged());
        assert!(!user.after_execution(None, None).is_privileged());
        let user = Ids::new(33, 33, vec![]).keeping_rights(true);
        assert!(!user.with_user(Quad::all(33)).is_privileged(), "there is nothing to keep");
    }

    #[test]
    fn groups_are_told_in_order() {
        assert_eq!(Ids::new(0, 0, vec![7, 3, 7]).groups(), [3, 7, 7]);
    }

    #[test]
    fn ids_are_found_by_the_slack_that_was_given_for_them() {
        let (root, user) = (Ids::new(0, 0, vec![]), Ids::new(1, 2, vec![3]));
        let mut known = Known::new(root.clone());
        let slack = known.slack_for(user.clone()).unwrap();
        assert_eq!(known.slack_for(user.clone()).unwrap(), slack);
        assert_eq!(known.of_slack(slack), &user);
        for other in [0, USUAL_SLACK, slack + 1, u64::MAX] {
            assert_eq!(known.of_slack(other), &root);
        }
    }

    #[test]
    fn a_program_decides_by_its_layout_whether_it_was_executed() {
        let (user, root) = (Ids::new(1, 2, vec![3]), Ids::new(0, 0, vec![]));
        let mut known = Known::new(user.clone());
        let slack = known.slack_for_attempt(USUAL_SLACK, root.clone(), [1; 4]).unwrap();
        assert!(known.has_attempts());
        let Found::Attempt(attempt) = known.find(slack) else { panic!("it is one") };
        assert_eq!(known.of_slack(attempt.slack_with([1; 4])), &user);
        assert_eq!(known.of_slack(attempt.slack_with([2; 4])), &root);
        assert_eq!(known.of_slack(slack), &user, "until it is decided");
    }

    #[test]
    fn attempts_take_the_place_of_the_oldest() {
        let (user, root) = (Ids::new(1, 2, vec![3]), Ids::new(0, 0, vec![]));
        let mut known = Known::new(user);
        let mut attempt = |at| known.slack_for_attempt(USUAL_SLACK, root.clone(), [at; 4]).unwrap();
        let slacks: Vec<u64> = (0..Known::MOST_ATTEMPTS as u64).map(&mut attempt).collect();
        assert_eq!(attempt(7777), slacks[0]);
        assert_eq!(known.attempts.len(), Known::MOST_ATTEMPTS);
    }

    #[test]
    fn groups_have_a_bound_in_all() {
        let mut known = Known::new(Ids::new(0, 0, vec![]));
        let large = |first: u32| Ids::new(0, 0, (first..first + 65_536).collect());
        let fits = (0..).take_while(|first| known.slack_for(large(*first)).is_ok()).count();
        assert_eq!(fits, Known::MOST_GROUPS / 65_536);
        assert_eq!(known.slack_for(large(u32::MAX - 65_536)), Err(Errno::NOMEM));
        let same_groups = large(0).with_user(Quad::all(33));
        assert!(known.slack_for(same_groups).is_ok(), "they are in memory once");
    }

    #[test]
    fn no_user_outlives_a_program_with_the_rights_that_root_kept() {
        let root = Ids::new(0, 0, vec![]).keeping_rights(true);
        assert!(!root.is_plain_root());
        let root = root.after_execution(None, None);
        assert!(root.is_plain_root());
        assert!(!root.with_user(Quad::all(33)).is_privileged());
        let bits = libc::SECBIT_KEEP_CAPS as u32;
        let kept = Ids::new(0, 0, vec![]).with_secure_bits(bits);
        assert!(kept.with_user(Quad::all(33)).is_privileged());
        assert!(!kept.after_execution(None, None).with_user(Quad::all(33)).is_privileged());
        let unfixed = Ids::new(0, 0, vec![]).with_secure_bits(libc::SECBIT_NO_SETUID_FIXUP as u32);
        assert!(unfixed.after_execution(None, None).with_user(Quad::all(33)).is_privileged());
    }
}

"""judge: the policy, or another judge, rewards the policy's candidates; and the judge itself is measured."""

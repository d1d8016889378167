"""The judge stage: rewards for the policy's candidates, and measurements of the judge itself."""

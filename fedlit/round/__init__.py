"""One round as a pipeline of values: plan, payloads, their sum, the rule, what watches."""

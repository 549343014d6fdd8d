"""What the governor is to aim for: a file that people write, and everything about reading one.

``model`` has every key with its bounds; a policy is put together from layers, and every value knows
where it comes from. Nothing here decides anything: the governor is told a finished ``Policy``.
"""

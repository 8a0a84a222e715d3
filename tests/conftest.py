"""Settings of all tests."""

from hypothesis import HealthCheck, settings

# The time that an example takes says more about the machine than about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

package apiserver

// service is one of the services behind the front door.
type service int

const (
	appStream service = iota + 1
	ec2
	iamService
	sts
)

// signingName is the service's name in credential scopes and before the colon of an action.
func (s service) signingName() string {
	switch s {
	case appStream:
		return "appstream"
	case ec2:
		return "ec2"
	case iamService:
		return "iam"
	case sts:
		return "sts"
	}
	return ""
}
